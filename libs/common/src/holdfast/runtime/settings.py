"""Settings: environment variables with the prefix ``HOLDFAST_``, read once at a process's entry point.

The only place that reads the environment. Units are in the names. A ``HOLDFAST_*`` variable that no service knows is an
error that suggests the nearest known one: a mistyped limit must not silently be the default.
"""

import difflib
import os
import re
import socket
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, IPvAnyNetwork, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticUseDefault
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from holdfast.domain.errors import ConfigurationError
from holdfast.domain.revocation import LONGEST_TOKEN_SECONDS
from holdfast.runtime.cores import usable_cores
from holdfast.runtime.setting_types import (
    TRACE_ID,
    ConsoleUrl,
    EncryptionKeys,
    OtlpEndpoint,
    ProviderUrl,
    RedisUrl,
    RoleMap,
    SecretFile,
    Tenant,
    TraceUrl,
)

__all__ = [
    "BrokerSettings",
    "ClientSettings",
    "ConsoleSettings",
    "GatewaySettings",
    "IngestSettings",
    "LeaseSettings",
    "LiveSettings",
    "MaintenanceSettings",
    "ProcessorSettings",
    "ProcessSettings",
    "SealingSettings",
    "StorageSettings",
    "inspect",
    "TracingSettings",
    "load",
]

PREFIX = "HOLDFAST_"

MOST_PROCESSES = 4
"""Of a processor or of ingest unless more are asked for. A process of a processor has up to 18 connections, and PostgreSQL's
own default is 100 in all; the processes of ingest share theirs."""

_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://\S+")
_SERVICE_LINK_NAMES = re.compile(
    r"HOLDFAST_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""What Kubernetes puts into every container of a namespace for a Service whose name begins with "holdfast"
(https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables)."""

_SERVICE_LINK_VALUES = re.compile(r"(tcp|udp|sctp)://\S+|[0-9a-fA-F:.]+|[0-9]+|tcp|udp|sctp|None", re.IGNORECASE)


class ProcessSettings(BaseSettings):
    """What every process has."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _ignore_service_link(cls, value: object, info: ValidationInfo) -> object:
        """``HOLDFAST_INGEST_PORT=tcp://10.0.0.1:80`` is Kubernetes' word for a Service, not a port of ours."""
        is_port = (info.field_name or "").endswith("_port")
        if is_port and isinstance(value, str) and _SERVICE_LINK.fullmatch(value):
            raise PydanticUseDefault
        return value

    log_format: Literal["auto", "json", "console"] = "auto"
    """``auto``: readable on a terminal, JSON lines otherwise."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_error_texts: bool = False
    """Log the messages of exceptions as well. They may quote payloads, so only types and frames are logged without it."""
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Serves /metrics, /livez and /readyz; 0: not at all."""
    node_name: str = Field(default_factory=socket.gethostname)
    """Names this process's host in leases, logs and ``welcome`` frames."""


class StorageSettings(ProcessSettings):
    """Processes that speak to PostgreSQL."""

    database_url: SecretStr
    """``postgresql://user:password@host:5432/name``."""
    database_pool_size: int = Field(default=10, ge=1, le=200)


class SealingSettings(StorageSettings):
    """Processes that write or read data of events: all of those that speak to PostgreSQL."""

    encryption_keys: EncryptionKeys | None = None
    """Keys that seal the tenants' data keys, separated by commas, the current one first; without any nothing is sealed."""
    encryption_enabled: bool = True
    """Whether new data is sealed, where there are keys. What is sealed already opens either way."""

    def read_encryption_keys(self) -> str | None:
        """The keys, as they were given."""
        return None if self.encryption_keys is None else self.encryption_keys.get_secret_value()


class BrokerSettings(ProcessSettings):
    """Processes that ring or hear doorbells."""

    broker_url: RedisUrl = SecretStr("redis://127.0.0.1:6379/0")
    """Dramatiq's Redis."""


class LiveSettings(ProcessSettings):
    """Processes that write or read the live window."""

    redis_url: RedisUrl = SecretStr("redis://127.0.0.1:6379/1")
    live_window_seconds: int = Field(default=600, ge=10, le=86_400)
    """How long an update can be replayed to a client that comes back."""
    live_window_updates: int = Field(default=1000, ge=10, le=100_000)
    """How many updates of a topic can be replayed, about."""


class LeaseSettings(ProcessSettings):
    """Processes that hand out leases, or tell how long one lasts."""

    lease_seconds: float = Field(default=30.0, ge=1, le=3600)


class TracingSettings(ProcessSettings):
    """Processes that export spans."""

    otlp_endpoint: OtlpEndpoint | None = None
    """Where an OpenTelemetry collector takes OTLP over HTTP, without ``/v1/traces``; without it nothing is traced."""
    otlp_headers: SecretStr | None = None
    """Sent along, for collectors that want a key: ``name=value,name=value``, percent-encoded."""
    trace_sample_ratio: float = Field(default=1.0, ge=0, le=1)
    """Share of the requests that are traced, of those whose sender has not decided it by ``traceparent``."""


class ConsoleSettings(ProcessSettings):
    """The console of ingest, and signing in to it with OpenID Connect."""

    console_secret: SecretStr | None = Field(default=None, min_length=32)
    """Signs sessions of the console at ``/console``, which is not served without it. All processes of ingest share it, and
    nothing else does: the gateway, which has ``live_token_secret``, must not be able to make one."""
    console_url: ConsoleUrl | None = None
    """Where browsers find the console (``https://events.example.com``); the provider sends them back to it."""
    trace_url: TraceUrl | None = None
    """Where people look at a trace, with ``{trace_id}`` in the place of its id; the page of an event links there."""
    oidc_client_id: str | None = Field(default=None, min_length=1, max_length=255)
    oidc_client_secret: SecretStr | None = Field(default=None, min_length=1)
    """Without it, and without the file, the client is a public one, which PKCE alone protects."""
    oidc_client_secret_file: SecretFile | None = None
    oidc_scopes: str = Field(default="openid email profile", pattern=r"(^|.* )openid($| .*)", max_length=1000)
    """Asked of the provider, separated by spaces; some need one more for the claim with the roles."""
    oidc_tenant: Tenant | None = None
    """The tenant of everybody who signs in with OpenID Connect."""
    oidc_tenant_claim: str | None = Field(default=None, min_length=1, max_length=255)
    """Or the claim of the id token that names it."""
    oidc_roles_claim: str = Field(default="groups", min_length=1, max_length=255)
    """The claim that :attr:`oidc_roles` is about; ``a.b`` is ``b`` within ``a``, unless there is a claim named ``a.b``."""
    oidc_roles: RoleMap = Field(default_factory=dict)
    """Which value of the claim is which role: ``holdfast-admins:admin,support:viewer``."""
    oidc_issuer: ProviderUrl | None = Field(default=None, validate_default=True)
    """The provider's issuer, exactly as it calls itself; without it there is no sign-in but with an API key."""

    @field_validator("oidc_issuer")
    @classmethod
    def _complete(cls, value: str | None, info: ValidationInfo) -> str | None:
        """The last of these settings, so that it sees the others; one that is wrong is missing in ``info.data``."""
        others = info.data
        if value is None:
            if idle := [name for name in _OIDC_ALONE if others.get(name)]:
                raise ValueError(f"set it too: without it HOLDFAST_{idle[0].upper()} has no effect")
            return value
        missing = [name for name in _OIDC_NEEDS if name in others and not others[name]]
        if missing:
            raise ValueError(f"it needs {', '.join(f'HOLDFAST_{name.upper()}' for name in missing)} too")
        tenants = [others[name] for name in ("oidc_tenant", "oidc_tenant_claim") if name in others]
        if len(tenants) == 2 and sum(map(bool, tenants)) != 1:
            raise ValueError("it needs HOLDFAST_OIDC_TENANT or HOLDFAST_OIDC_TENANT_CLAIM, one of them")
        if others.get("oidc_client_secret") and others.get("oidc_client_secret_file"):
            raise ValueError("give HOLDFAST_OIDC_CLIENT_SECRET or HOLDFAST_OIDC_CLIENT_SECRET_FILE, not both")
        return value

    def trace_address(self, trace_id: str | None) -> str | None:
        """Where people look at this trace; ``None`` where nothing shows traces."""
        return self.trace_url.replace(TRACE_ID, trace_id) if self.trace_url and trace_id else None

    def read_oidc_secret(self) -> str | None:
        """The client's secret; ``None`` for a public client."""
        if self.oidc_client_secret_file is not None:
            return self.oidc_client_secret_file.read_text().strip()
        return self.oidc_client_secret.get_secret_value() if self.oidc_client_secret else None


_OIDC_NEEDS = ("console_secret", "console_url", "oidc_client_id", "oidc_roles")
_OIDC_ALONE = (
    "oidc_client_id", "oidc_client_secret", "oidc_client_secret_file", "oidc_tenant", "oidc_tenant_claim", "oidc_roles",
)  # fmt: skip


class IngestSettings(SealingSettings, BrokerSettings, LiveSettings, TracingSettings, ConsoleSettings):
    """``services/ingest``."""

    ingest_host: str = "127.0.0.1"
    ingest_port: int = Field(default=8080, ge=0, le=65535)
    ingest_processes: int = Field(default_factory=lambda: min(MOST_PROCESSES, usable_cores()), ge=1, le=64)
    """Processes that share the port, and among which the service's limits are divided: connections, bodies in memory."""
    ingest_threads: int = Field(default=16, ge=1, le=256)
    """Requests that each process answers at once."""
    ingest_request_seconds: float = Field(default=20.0, ge=1, le=600)
    """A request has to arrive whole within this time of its first byte, and its head within ten seconds; otherwise 408."""
    max_event_bytes: int = Field(default=256 * 1024, ge=1024, le=16 * 1024 * 1024)
    """Body of one event; longer ones are answered with 413."""
    max_batch_bytes: int = Field(default=4 * 1024 * 1024, ge=1024, le=64 * 1024 * 1024)
    """Body of a batch; the same."""
    redis_timeout_seconds: float = Field(default=0.3, gt=0, le=5)
    """For publish and doorbell after the commit, each; the 202 never waits longer for Redis."""
    redispatch_grace_seconds: float = Field(default=5.0, ge=0, le=3600)
    """How long the doorbell of a new event has before maintenance rings it again."""
    backlog_limit_seconds: float = Field(default=900.0, ge=0, le=7 * 86_400)
    """Events are turned away while the oldest due one has waited for longer, until it is down to half of that; 0: never."""
    key_cache_seconds: float = Field(default=30.0, ge=0, le=60)
    """A revoked API key works for at most this long."""
    live_token_secret: SecretStr = Field(min_length=32)
    """Signs live tokens (HS256); shared with the gateway."""
    live_token_max_seconds: int = Field(default=3600, ge=60, le=LONGEST_TOKEN_SECONDS)
    public_live_url: str | None = None
    """Where browsers find the gateway, told along with a token."""
    trusted_proxies: list[IPvAnyNetwork] = Field(default_factory=list)
    """Addresses or networks of proxies, as JSON (``["10.0.0.0/8"]``), whose ``X-Forwarded-For`` says who sent a request, for
    the audit log; empty: nobody's. Anybody else can write what they like there."""


class ProcessorSettings(SealingSettings, BrokerSettings, LiveSettings, LeaseSettings, TracingSettings):
    """``services/processor``."""

    handlers: str | None = None
    """``package.module:attribute``; otherwise every installed entry point of the group ``holdfast.handlers``."""
    processor_processes: int = Field(default_factory=lambda: min(MOST_PROCESSES, usable_cores()), ge=1, le=64)
    processor_threads: int = Field(default=8, ge=1, le=64)
    pool: str = ""
    """Names of the pools of handlers that it serves, with commas; ``default``: of handlers that name none. Empty: all."""
    reserved_threads: int = Field(default=0, ge=0, le=63)
    """Of the threads of each process: kept free for events of ``reserved_priority`` and above. Fewer than there are."""
    reserved_priority: int = Field(default=8, ge=1, le=9)
    async_concurrency: int = Field(default=100, ge=1, le=10_000)
    """Events of ``async def`` handlers at once, in each process: they share a thread, beside those above."""
    no_handler_seconds: float = Field(default=3600.0, ge=0, le=30 * 86_400)
    """How long an event waits for a processor that serves its type, from when it became due, before it is a dead letter
    (``no_handler``); 0: the first processor that does not serve it decides."""
    shutdown_seconds: float = Field(default=25.0, ge=1, le=3600)
    """Grace for running handlers at SIGTERM; keep it below the orchestrator's."""

    @model_validator(mode="after")
    def _reserves_fewer_than_there_are(self) -> "ProcessorSettings":
        if self.reserved_threads >= self.processor_threads:
            raise ValueError(
                f"HOLDFAST_RESERVED_THREADS={self.reserved_threads} leaves none of the {self.processor_threads} threads"
                " (HOLDFAST_PROCESSOR_THREADS) for other events; reserve fewer, or have more"
            )
        return self

    @property
    def pools(self) -> set[str]:
        """Those of ``pool``; the empty one is that of handlers that name none."""
        names = {each.strip() for each in self.pool.split(",")} - {""}
        return {"" if each == "default" else each for each in names}


class MaintenanceSettings(SealingSettings, BrokerSettings, LiveSettings, TracingSettings):
    """``services/maintenance``."""

    sweep_seconds: float = Field(default=1.0, ge=0.2, le=60)
    """Between two runs of each duty's in-process timer."""
    sweep_limit: int = Field(default=500, ge=1, le=10_000)
    """Events that one run of a duty takes on."""
    relay_after_seconds: float = Field(default=5.0, ge=0.5, le=600)
    """Age by which maintenance publishes an update that its process did not; it is left alone for half of that."""
    maintenance_threads: int = Field(default=4, ge=1, le=16)
    retention_days: int = Field(default=0, ge=0, le=36_500)
    """Events that were processed or discarded go so long after their end, unless their tenant has a rule; 0: never. Dead
    letters go by a rule only."""
    dedupe_days: int = Field(default=30, ge=1, le=3_650)
    """How long an event's identity is known at least, from when it was received: a repetition within that is a duplicate,
    even if the event is gone."""
    shutdown_seconds: float = Field(default=25.0, ge=1, le=3600)


class GatewaySettings(LiveSettings, LeaseSettings):
    """``services/ws-gateway``. The protocol's limits are constants in ``gateway.protocol.frames``, being part of it."""

    gateway_host: str = "127.0.0.1"
    gateway_port: int = Field(default=8090, ge=0, le=65535)
    live_token_secret: SecretStr = Field(min_length=32)
    """Verifies live tokens (HS256); shared with ingest."""
    live_token_keys: Path | None = None
    """A file with a JWK set: public keys that verify tokens of other issuers, who are trusted with every tenant."""
    gateway_connections: int = Field(default=20_000, ge=1, le=1_000_000)
    """Open connections of one process. Fewer where the limit of file descriptors is lower; more are answered with 503."""
    gateway_demo: bool = False
    """Serves the demo at ``/demo/``, where anybody who reaches the gateway can place a few orders; for trying out."""
    gateway_demo_ingest_url: str = "http://127.0.0.1:8080"
    """Where the demo places its orders."""
    gateway_demo_key_file: Path | None = None
    """A file with the demo's API key (``events:write``, ``events:read``, ``operate``); without it the shop is closed."""
    allowed_origins: list[str] = Field(default_factory=list)
    """Browser origins that may connect, as JSON (``["https://app.example.com"]``, ``["*"]`` for every one); empty: same host
    only. See ``gateway.clients.origins``."""
    connections_per_subject: int = Field(default=1000, ge=1, le=1_000_000)
    """Open live connections of one token subject, on all gateways together. A token made without ``sub`` has its API key for
    a subject, with all that use it; where every user has a subject, a few dozen are plenty."""


class ClientSettings(ProcessSettings):
    """Names that the ``holdfast`` command reads; declared here so that services beside it do not take them for mistakes."""

    url: str | None = None
    api_key: SecretStr | None = None
    live_url: str | None = None


ALL = (
    StorageSettings,
    SealingSettings,
    BrokerSettings,
    LiveSettings,
    LeaseSettings,
    IngestSettings,
    ProcessorSettings,
    MaintenanceSettings,
    GatewaySettings,
    ClientSettings,
)

Kind = TypeVar("Kind", bound=ProcessSettings)


def load(kind: type[Kind]) -> Kind:
    """Read one process's settings from the environment.

    Raises:
        ConfigurationError: naming every missing, invalid or unknown variable, never its value.
    """
    settings, problems = inspect(kind)
    if settings is None or problems:
        raise ConfigurationError("settings: " + "; ".join(problems))
    return settings


def inspect(kind: type[Kind]) -> tuple[Kind | None, list[str]]:
    """One process's settings, or ``None``, and every missing, invalid or unknown variable, never its value."""
    problems = _unknown_names()
    try:
        return kind(), problems
    except SettingsError as exc:  # a list that is no JSON; pydantic names the field, and quotes nothing of the value
        problems.append(f'{str(exc).partition(" from source")[0]}: it must be JSON, such as ["a", "b"]')
    except ValidationError as exc:
        problems += [f"{PREFIX}{'.'.join(map(str, error['loc'])).upper()}: {error['msg']}" for error in exc.errors()]
    return None, problems


def _unknown_names() -> list[str]:
    known = {f"{PREFIX}{name}".upper() for kind in ALL for name in kind.model_fields}
    unknown = sorted(
        name
        for name, value in os.environ.items()
        if name.upper().startswith(PREFIX) and name.upper() not in known and not _is_service_link(name, value)
    )
    return [f"{name} is not a setting{_suggestion(name, known)}" for name in unknown]


def _is_service_link(name: str, value: str) -> bool:
    return bool(_SERVICE_LINK_NAMES.fullmatch(name) and _SERVICE_LINK_VALUES.fullmatch(value))


def _suggestion(name: str, known: set[str]) -> str:
    # Without the prefix, which alone would make any two names alike.
    near = difflib.get_close_matches(
        name.upper().removeprefix(PREFIX), [each.removeprefix(PREFIX) for each in known], n=1
    )
    return f"; did you mean {PREFIX}{near[0]}?" if near else ""
