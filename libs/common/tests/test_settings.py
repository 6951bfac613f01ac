"""Settings: what is said about wrong ones, and that no value is repeated."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.domain.errors import ConfigurationError
from holdfast.runtime.settings import (
    BrokerSettings,
    ClientSettings,
    ConsoleSettings,
    GatewaySettings,
    IngestSettings,
    LiveSettings,
    MaintenanceSettings,
    ProcessorSettings,
    ProcessSettings,
    StorageSettings,
    load,
)

KINDS: list[type[ProcessSettings]] = [
    BrokerSettings, ClientSettings, ConsoleSettings, GatewaySettings, IngestSettings, LiveSettings, MaintenanceSettings,
    ProcessorSettings, ProcessSettings, StorageSettings,
]  # fmt: skip

Set = Callable[..., None]


@pytest.fixture
def set_(monkeypatch: pytest.MonkeyPatch) -> Set:
    """Set ``HOLDFAST_*`` variables."""

    def set_variables(**settings: str) -> None:
        for name, value in settings.items():
            monkeypatch.setenv(f"HOLDFAST_{name}", value)

    return set_variables


def problems(kind: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(kind)
    return str(caught.value).removeprefix("settings: ").split("; HOLDFAST_")


def test_a_setting_is_read_with_its_type(set_: Set) -> None:
    set_(DATABASE_URL="postgresql://h/d", SWEEP_SECONDS="0.5", SWEEP_LIMIT="7")

    settings = load(MaintenanceSettings)

    assert (settings.sweep_seconds, settings.sweep_limit) == (0.5, 7)
    assert settings.database_url.get_secret_value() == "postgresql://h/d"


def test_an_unknown_name_is_an_error_that_suggests_the_nearest(set_: Set) -> None:
    set_(DATABASE_URL="postgresql://h/d", SWEEP_LIMITS="7")

    [problem] = problems(MaintenanceSettings)

    assert problem == "HOLDFAST_SWEEP_LIMITS is not a setting; did you mean HOLDFAST_SWEEP_LIMIT?"


def test_a_name_like_no_other_is_refused_without_a_suggestion(set_: Set) -> None:
    set_(DATABASE_URL="postgresql://h/d", QQQQ="7")

    assert problems(MaintenanceSettings) == ["HOLDFAST_QQQQ is not a setting"]


def test_every_problem_is_told_at_once(set_: Set) -> None:
    set_(SWEEP_SECONDS="soon", SWEEP_LIMIT="0", SWEEP="1")

    told = "\n".join(problems(MaintenanceSettings))

    assert len(told.split("\n")) == 4
    for name in ("SWEEP is not", "DATABASE_URL: Field required", "SWEEP_SECONDS: ", "SWEEP_LIMIT: "):
        assert name in told


def test_no_value_is_repeated(set_: Set) -> None:
    set_(
        DATABASE_URL="postgresql://u:s3cret@h/d", LIVE_TOKEN_SECRET="s3cret", METRICS_PORT="s3cret", LOG_LEVEL="s3cret"
    )

    told = "\n".join(problems(IngestSettings))

    assert "s3cret" not in told
    assert "LIVE_TOKEN_SECRET" in told


def test_settings_do_not_show_their_secrets(set_: Set) -> None:
    set_(DATABASE_URL="postgresql://u:s3cret@h/d", BROKER_URL="redis://:s3cret@h/0", REDIS_URL="redis://:s3cret@h/1",
         LIVE_TOKEN_SECRET="s3cret" * 6)  # fmt: skip

    assert "s3cret" not in repr(load(IngestSettings))


@pytest.mark.parametrize("name", sorted({name for kind in KINDS for name in kind.model_fields}))
def test_a_name_that_any_process_reads_is_no_mistake_in_another(set_: Set, name: str) -> None:
    # Beside a mistake, so that there is an answer to look at whatever the value is worth.
    set_(**{name.upper(): "1", "QQQQ": "1"})

    told = "\n".join(problems(ProcessSettings))

    assert "QQQQ is not a setting" in told
    assert f"HOLDFAST_{name.upper()} is not a setting" not in told


def test_settings_can_not_be_changed() -> None:
    settings = load(ProcessSettings)

    with pytest.raises(ValueError, match="frozen"):
        settings.log_level = "debug"  # type: ignore[misc]


SERVICE_LINKS = {
    "SERVICE_HOST": "10.96.0.7", "SERVICE_PORT": "80", "SERVICE_PORT_HTTP": "80", "PORT": "tcp://10.96.0.7:80",
    "PORT_80_TCP": "tcp://10.96.0.7:80", "PORT_80_TCP_PROTO": "tcp", "PORT_80_TCP_PORT": "80",
    "PORT_80_TCP_ADDR": "10.96.0.7",
}  # fmt: skip
"""What Kubernetes says of one Service, behind its name."""


@pytest.mark.parametrize("service", ["", "INGEST_", "GATEWAY_", "METRICS_", "PROCESSOR_", "WS_GATEWAY_", "REDIS_"])
def test_what_kubernetes_says_of_its_services_is_ignored(set_: Set, service: str) -> None:
    set_(DATABASE_URL="postgresql://h/d", LIVE_TOKEN_SECRET="x" * 32)
    set_(**{f"{service}{name}": value for name, value in SERVICE_LINKS.items()})

    settings = load(IngestSettings)

    assert (settings.ingest_port, settings.metrics_port) == (8080, 0)
    assert load(GatewaySettings).gateway_port == 8090


@pytest.mark.parametrize(
    ("name", "value"),
    [("INGEST_PORT", "80a"), ("INGEST_PORT", "tcp:80"), ("INGEST_PROT", "80"), ("INGEST_SERVICE_HOSTS", "10.96.0.7")],
)
def test_a_mistake_that_only_looks_like_kubernetes_is_one(set_: Set, name: str, value: str) -> None:
    set_(DATABASE_URL="postgresql://h/d", LIVE_TOKEN_SECRET="x" * 32, **{name: value})

    [problem] = problems(IngestSettings)

    assert name in problem


@pytest.mark.parametrize("name", ["BROKER_URL", "REDIS_URL"])
@pytest.mark.parametrize(
    "url",
    [
        "redis://:pa/s3cret@host", "redis://:s3cret#@host:6379", "http://:s3cret@host", "s3cret", "", "redis://",
        "redis://:s3cret@host:port/0", "redis://:s3cret@host:6379/first", "redis://:s3 cret@host", "redis://:s3cret@[::1",
        "redis://:s3cret@host:99999", "unix://",
    ],
)  # fmt: skip
def test_a_wrong_address_of_redis_is_refused_without_secrets(set_: Set, name: str, url: str) -> None:
    set_(DATABASE_URL="postgresql://h/d", **{name: url})

    [problem] = problems(MaintenanceSettings)

    assert name in problem
    assert "redis://:password@host:6379/0" in problem
    assert "s3" not in problem


@pytest.mark.parametrize(
    "url", ["redis://:pa%2Fss@[::1]:6379/1", "rediss://u:p@h", "unix:///run/redis.sock", "redis://h\n"]
)
def test_addresses_of_redis(set_: Set, url: str) -> None:
    set_(DATABASE_URL="postgresql://h/d", BROKER_URL=url)

    assert load(MaintenanceSettings).broker_url.get_secret_value() == url.strip()


def test_a_list_that_is_no_json_is_named(set_: Set) -> None:
    set_(LIVE_TOKEN_SECRET="x" * 32, ALLOWED_ORIGINS="https://app.example.com")

    [problem] = problems(GatewaySettings)

    assert "allowed_origins" in problem
    assert "JSON" in problem


def test_trusted_proxies_are_addresses_and_networks(set_: Set) -> None:
    set_(DATABASE_URL="postgresql://h/d", LIVE_TOKEN_SECRET="x" * 32, TRUSTED_PROXIES='["10.0.0.0/8", "2001:db8::1"]')

    assert [str(network) for network in load(IngestSettings).trusted_proxies] == ["10.0.0.0/8", "2001:db8::1/128"]


@pytest.mark.parametrize("value", ['["proxy.example.com"]', '["10.0.0.1/8"]', '["*"]', "10.0.0.0/8"])
def test_a_trusted_proxy_that_is_no_network_is_named(set_: Set, value: str) -> None:
    set_(DATABASE_URL="postgresql://h/d", LIVE_TOKEN_SECRET="x" * 32, TRUSTED_PROXIES=value)

    [problem] = problems(IngestSettings)

    assert "trusted_proxies" in problem.lower()


def test_a_trace_is_shown_where_the_setting_says(set_: Set) -> None:
    set_(TRACE_URL=" https://traces.example.com/trace/{trace_id} ")

    settings = load(ConsoleSettings)

    assert settings.trace_address("0af7") == "https://traces.example.com/trace/0af7"
    assert settings.trace_address(None) is None


def test_without_the_setting_a_trace_is_shown_nowhere() -> None:
    assert load(ConsoleSettings).trace_address("0af7") is None


@pytest.mark.parametrize(
    "value",
    [
        "https://h/trace", "javascript:alert('{trace_id}')", "https://u:s3cret@h/{trace_id}", "https:///{trace_id}", "",
        "https://[h/{trace_id}", "https://h:0/{trace_id}", "https://h/{trace_id}/{trace_id}",
        "https://h/{trace_id} x", "/trace/{trace_id}",
    ],
)  # fmt: skip
def test_an_address_without_the_place_of_a_trace_is_refused(set_: Set, value: str) -> None:
    set_(TRACE_URL=value)

    [problem] = problems(ConsoleSettings)

    assert "trace_url" in problem.lower()
    assert "https://traces.example.com/trace/{trace_id}" in problem
    assert "s3cret" not in problem


OIDC = {
    "CONSOLE_SECRET": "x" * 32, "CONSOLE_URL": "https://events.example.com/console/", "OIDC_CLIENT_ID": "holdfast",
    "OIDC_ISSUER": "https://login.example.com/realms/acme", "OIDC_TENANT": "acme", "OIDC_ROLES": "urn:a:b:admin, c:viewer",
}  # fmt: skip


def test_sign_in_with_openid_connect_is_read(set_: Set) -> None:
    set_(**OIDC)

    settings = load(ConsoleSettings)

    assert settings.console_url == "https://events.example.com"
    assert settings.oidc_roles == {"urn:a:b": "admin", "c": "viewer"}
    assert settings.read_oidc_secret() is None


@pytest.mark.parametrize("issuer", ["http://127.0.0.1:8180/realms/x", "http://localhost", "http://[::1]:1"])
def test_a_provider_on_this_machine_needs_no_tls(set_: Set, issuer: str) -> None:
    set_(**OIDC | {"OIDC_ISSUER": issuer})

    assert load(ConsoleSettings).oidc_issuer == issuer


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"OIDC_CLIENT_ID": None}, ["OIDC_ISSUER", "OIDC_CLIENT_ID"]),
        ({"CONSOLE_URL": None, "CONSOLE_SECRET": None}, ["OIDC_ISSUER", "CONSOLE_SECRET", "CONSOLE_URL"]),
        ({"OIDC_ROLES": None}, ["OIDC_ISSUER", "OIDC_ROLES"]),
        ({"OIDC_TENANT": None}, ["OIDC_TENANT", "OIDC_TENANT_CLAIM"]),
        ({"OIDC_TENANT_CLAIM": "s3cret"}, ["OIDC_TENANT", "OIDC_TENANT_CLAIM"]),
        ({"OIDC_ISSUER": None}, ["OIDC_ISSUER", "OIDC_CLIENT_ID"]),
        ({"OIDC_ISSUER": "http://s3cret.example.com"}, ["OIDC_ISSUER", "https://"]),
        ({"OIDC_ISSUER": "https://u:s3cret@h"}, ["OIDC_ISSUER"]),
        ({"OIDC_ISSUER": "https://h:s3cret"}, ["OIDC_ISSUER"]),
        ({"OIDC_ISSUER": "https://h/?s3cret"}, ["OIDC_ISSUER"]),
        ({"CONSOLE_URL": "http://s3cret.example.com"}, ["CONSOLE_URL", "https://"]),
        ({"CONSOLE_URL": "https://h/s3cret"}, ["CONSOLE_URL", "/console"]),
        ({"OIDC_ROLES": "s3cret"}, ["OIDC_ROLES", "holdfast-admins:admin"]),
        ({"OIDC_ROLES": "a:s3cret"}, ["OIDC_ROLES"]),
        ({"OIDC_SCOPES": "email s3cret"}, ["OIDC_SCOPES"]),
        ({"OIDC_TENANT": "../s3cret"}, ["OIDC_TENANT"]),
        ({"OIDC_CLIENT_SECRET_FILE": "/nowhere/s3cret"}, ["OIDC_CLIENT_SECRET_FILE", "cannot be read"]),
    ],
)
def test_half_a_provider_is_refused_with_what_is_missing(
    set_: Set, changes: dict[str, str | None], names: list[str]
) -> None:
    set_(**{name: value for name, value in (OIDC | changes).items() if value is not None})

    told = "\n".join(problems(ConsoleSettings))

    assert "s3cret" not in told
    for name in names:
        assert name in told


def test_a_secret_comes_from_one_place(set_: Set, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    set_(**OIDC, OIDC_CLIENT_SECRET_FILE=str(tmp_path / "secret"))
    assert load(ConsoleSettings).read_oidc_secret() == "s3cret"

    set_(OIDC_CLIENT_SECRET="another")

    [told] = problems(ConsoleSettings)
    assert "OIDC_CLIENT_SECRET_FILE, not both" in told
