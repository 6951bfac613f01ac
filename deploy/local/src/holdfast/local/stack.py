"""A stack: PostgreSQL, Valkey and the services, on ports of its own, supervised."""

import contextlib
import json
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from holdfast.local.pooler import PgBouncer
from holdfast.local.process import Guarded, StartFailed, children_by_parent, wait_until
from holdfast.local.servers import Postgres, Server, Valkey, claim, free_port
from holdfast.local.services import SERVICES, Service, environment, is_ready
from holdfast.runtime.restarts import Restarts
from holdfast.storage.database import Database
from holdfast.storage.keys import SCOPES, create_key
from holdfast.storage.migrate import upgrade

__all__ = ["DEMO_SCOPES", "Ports", "Stack", "TENANT"]

READY_SECONDS = 60
TENANT = "demo"
DEMO_KEY = "demo-key"
DEMO_SCOPES = ("events:write", "events:read", "operate")
"""What the demo page's gateway needs: orders, live tokens, and replays."""
CHECK_SECONDS = 0.2
RESTART_SECONDS = (0.2, 5.0)
"""Wait before the first restart of a service that died, and the longest one; it doubles in between."""
SERVER_RESTART_SECONDS = (3.0, 30.0)
"""The same for PostgreSQL and Valkey: long enough to see on this machine what an outage does to the services."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Wished ports; one that is taken is replaced by a free one, and 0 asks for any."""

    postgres: int = 0
    redis: int = 0
    ingest: int = 0
    gateway: int = 0


class Stack:
    """Starts everything in order, restarts what dies, and stops everything in order. A server or service that is stopped
    through this object stays down until it is started again through it. As a context manager it runs within the block.

    Args:
        folder: data, logs and ``stack.json``.
        settings: ``HOLDFAST_*`` variables for all services, on top of those that make the stack.
        held: services that are not started, until :meth:`resume`.
        python_path: where services find modules beside the installed ones.
        pooler: makes a pooler through which the services reach PostgreSQL.
        say: told in a line what happens.

    Attributes:
        on_stopped: called with every stack of this process that has stopped. What it raises, ``stop`` does.
    """

    on_stopped: ClassVar[Callable[["Stack"], object]] = staticmethod(lambda _: None)

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, str] | None = None,
        ports: Ports | None = None,
        held: Collection[str] = (),
        python_path: str = "",
        is_durable: bool = True,
        pooler: Callable[[Path, Postgres], PgBouncer] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        asked = ports or Ports()
        self._claims = contextlib.ExitStack()
        wished = Ports(*(port if port and self._claim(port) else 0 for port in astuple(asked)))
        self.folder = folder
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self._temporary = folder / "tmp"
        self.postgres = Postgres(folder / "postgres", port=wished.postgres, is_durable=is_durable)
        self.redis = Valkey(folder / "redis", port=wished.redis, is_persistent=True)
        self._pooler = pooler(folder / "pgbouncer", self.postgres) if pooler else None
        self._ports = {"ingest": free_port(wished.ingest), "ws-gateway": free_port(wished.gateway)}
        self._metrics = {service.name: free_port() for service in SERVICES if service.has_metrics}
        self._settings = dict(settings or {})
        self._held = held
        self._python_path = python_path
        self._secret = secrets.token_hex(32)
        self._console_secret = secrets.token_hex(32)
        self._say = say
        self.services = {
            service.name: Guarded(service.name, log=self.logs / f"{service.name}.log") for service in SERVICES
        }
        self._lock = threading.RLock()
        self._is_stopping = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._pids: dict[str, list[int]] = {}
        self.api_key = ""
        for name, port, wish in self._wishes(asked):
            if wish and port != wish:
                say(f"port {wish} is taken: {name} is on {port}")

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def database_url(self) -> str:
        """``postgresql://`` address."""
        return self.postgres.url("holdfast")

    @property
    def ingest_url(self) -> str:
        """Where events are POSTed, without the path."""
        return f"http://127.0.0.1:{self._ports['ingest']}"

    @property
    def live_url(self) -> str:
        """The WebSocket address."""
        return f"ws://127.0.0.1:{self._ports['ws-gateway']}/v1/live"

    @property
    def demo_url(self) -> str:
        """The demo: a shop whose orders are placed and watched."""
        return f"http://127.0.0.1:{self._ports['ws-gateway']}/demo/"

    @property
    def console_url(self) -> str:
        """The console's address."""
        return f"{self.ingest_url}/console/"

    def metrics_url(self, service: str) -> str:
        """Where a service serves /metrics, /livez and /readyz."""
        return f"http://127.0.0.1:{self._metrics[service]}"

    def start(self) -> None:
        """Start servers, migrate, make a key, start the services, and wait until all are ready.

        Raises:
            StartFailed: with the end of the log that says why.
        """
        self._clear_temporary_files()
        for server in self._servers():
            self._say(f"starting {server.process.name}")
            server.start()
        self._prepare_database()
        self._say("starting the services")
        wanted = [service for service in SERVICES if service.name not in self._held]
        for service in wanted:
            self._start(service)
        for service in wanted:
            self._await(service)
        self._write()
        self._supervisor.start()

    def stop(self) -> None:
        """Stop the services, then the servers."""
        self._is_stopping.set()
        if self._supervisor.is_alive():
            self._supervisor.join()
        stopping = [threading.Thread(target=process.stop) for process in self.services.values()]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        for server in reversed(self._servers()):
            server.stop()
        self._clear_temporary_files()
        self._claims.close()
        (self.folder / "stack.json").unlink(missing_ok=True)
        type(self).on_stopped(self)

    def secrets(self) -> list[str]:
        """What nobody else may learn: passwords, what signs tokens, and the secret part of the keys that it has made."""
        keys = [path.read_text() for path in (self.folder / "api-key", self.folder / DEMO_KEY) if path.exists()]
        own = [self._secret, self._console_secret, self.postgres.password, self.redis.password]
        return own + [key.split("_", 2)[2] for key in keys]

    def hold(self, name: str) -> None:
        """Stop a service and do not restart it until :meth:`resume`."""
        with self._lock:
            self.services[name].stop()

    def resume(self, name: str) -> None:
        """Start a held service again and wait until it is ready."""
        service = next(service for service in SERVICES if service.name == name)
        with self._lock:
            if not self.services[name].is_running:
                self._start(service)
        self._await(service)
        self._write()

    def environment_of(self, name: str) -> dict[str, str]:
        """The whole environment that a service gets, or would get."""
        return environment(self._settings_of(next(service for service in SERVICES if service.name == name)))

    def create_key(self, tenant: str, *, name: str = "local stack", scopes: Sequence[str] = SCOPES) -> str:
        """A new API key, with every scope unless others are named."""
        database = Database(self.database_url, application_name="holdfast-local", pool_size=1)
        try:
            with database.transaction() as session:
                return create_key(session, tenant=tenant, name=name, scopes=scopes)
        finally:
            database.close()

    def describe(self) -> dict[str, Any]:
        """The content of ``stack.json``."""
        return {
            "ingest_url": self.ingest_url,
            "live_url": self.live_url,
            "demo_url": self.demo_url,
            "console_url": self.console_url,
            "api_key": self.api_key,
            "database_url": self.database_url,
            "redis_url": self.redis.url(1),
            "broker_url": self.redis.url(0),
            "metrics": {name: f"{self.metrics_url(name)}/metrics" for name in self._metrics},
            "pids": self._pids_now(),
        }

    def _claim(self, port: int) -> bool:
        """Whether no other stack is about to use the port; from now on until this one stops, none will."""
        holding = claim(port)
        if holding is not None:
            self._claims.enter_context(holding)
        return holding is not None

    def _wishes(self, wished: Ports) -> list[tuple[str, int, int]]:
        return [
            ("PostgreSQL", self.postgres.port, wished.postgres),
            ("Redis", self.redis.port, wished.redis),
            ("ingest", self._ports["ingest"], wished.ingest),
            ("the gateway", self._ports["ws-gateway"], wished.gateway),
        ]

    def _servers(self) -> tuple[Server, ...]:
        return (self.postgres, *([self._pooler] if self._pooler else []), self.redis)

    def _clear_temporary_files(self) -> None:
        """What the services left behind, those that were killed among them."""
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir()

    def _prepare_database(self) -> None:
        if not self.postgres.execute("SELECT 1 FROM pg_database WHERE datname = 'holdfast'"):
            self.postgres.execute("CREATE DATABASE holdfast")
        upgrade(self.database_url)
        self.api_key = self._kept_key("api-key")
        self._kept_key(DEMO_KEY, name="demo page", scopes=DEMO_SCOPES)

    def _kept_key(self, file: str, **key: Any) -> str:
        """The key in a file that its owner alone can read, made once."""
        kept = self.folder / file
        if not kept.exists():
            kept.touch(mode=0o600)
            kept.write_text(self.create_key(TENANT, **key))
        return kept.read_text()

    def _start(self, service: Service) -> None:
        self.services[service.name].start(service.command, environment(self._settings_of(service)))

    def _settings_of(self, service: Service) -> dict[str, str]:
        return {
            "HOLDFAST_DATABASE_URL": self._pooler.url("holdfast") if self._pooler else self.database_url,
            "HOLDFAST_BROKER_URL": self.redis.url(0),
            "HOLDFAST_REDIS_URL": self.redis.url(1),
            "HOLDFAST_LIVE_TOKEN_SECRET": self._secret,
            "HOLDFAST_CONSOLE_SECRET": self._console_secret,
            # The console is on ingest's port, and so another origin than the gateway.
            "HOLDFAST_ALLOWED_ORIGINS": json.dumps([self.ingest_url]),
            "HOLDFAST_INGEST_PORT": str(self._ports["ingest"]),
            "HOLDFAST_GATEWAY_PORT": str(self._ports["ws-gateway"]),
            "HOLDFAST_GATEWAY_DEMO": "true",
            "HOLDFAST_GATEWAY_DEMO_INGEST_URL": self.ingest_url,
            "HOLDFAST_GATEWAY_DEMO_KEY_FILE": str((self.folder / DEMO_KEY).absolute()),
            "HOLDFAST_PUBLIC_LIVE_URL": self.live_url,
            "HOLDFAST_METRICS_PORT": str(self._metrics.get(service.name, 0)),
            "HOLDFAST_SHUTDOWN_SECONDS": "8",
            # One processor serves all: what it does not know, nobody does, and samples should say so at once.
            "HOLDFAST_NO_HANDLER_SECONDS": "0",
            "HOLDFAST_LOG_FORMAT": "json",
            "TMPDIR": str(self._temporary),
            **({"PYTHONPATH": self._python_path} if self._python_path else {}),
            **self._settings,
        }

    def _await(self, service: Service) -> None:
        process = self.services[service.name]
        if service.has_metrics:
            url = self.metrics_url(service.name)
            wait_until(lambda: is_ready(url), process=process, seconds=READY_SECONDS, what=service.name)
        elif not process.is_running:
            raise StartFailed(f"{service.name} did not start; the end of {process.log}:\n{process.tail()}")

    def _supervise(self) -> None:
        restarts = {
            **{server.process: Restarts(*SERVER_RESTART_SECONDS) for server in self._servers()},
            **{process: Restarts(*RESTART_SECONDS) for process in self.services.values()},
        }
        while not self._is_stopping.wait(CHECK_SECONDS):
            with self._lock:
                for process, policy in restarts.items():
                    self._restart_if_dead(process, policy)
            if self._pids_now() != self._pids:
                self._write()

    def _restart_if_dead(self, process: Guarded, policy: Restarts) -> None:
        if not process.has_died:
            policy.note_running(time.monotonic())
        elif (wait_seconds := policy.note_death(time.monotonic())) is not None:
            self._say(f"{process.name} ended; starting it again in {wait_seconds:.1f} s (log: {process.log})")
        elif policy.is_due(time.monotonic()):
            policy.note_running(time.monotonic())
            self._restart(process)

    def _restart(self, process: Guarded) -> None:
        for server in self._servers():
            if server.process is process:
                try:
                    server.start()
                except StartFailed as exc:  # its end is seen at the next check
                    self._say(str(exc))
                return
        self._start(next(service for service in SERVICES if service.name == process.name))

    def _pids_now(self) -> dict[str, list[int]]:
        """Of the services with their children; of the servers without: a backend per connection comes and goes."""
        children = children_by_parent()
        servers = {server.process.name: server.process.pids({}) for server in self._servers()}
        return servers | {name: process.pids(children) for name, process in self.services.items()}

    def _write(self) -> None:
        """Write ``stack.json``, whole or not at all: others read it at any time, and two threads write it."""
        with self._lock:
            described = self.describe()
            self._pids = described["pids"]
            new = self.folder / "stack.json.new"
            new.touch(mode=0o600)
            new.write_text(json.dumps(described, indent=2) + "\n")
            new.replace(self.folder / "stack.json")
