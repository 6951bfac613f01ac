"""``holdfast doctor`` finds what is wrong with a deployment, each fault made on real servers, and says what to do."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from holdfast.client import Client
from holdfast.client.checkup import Finding, Verdict, clock_finding, report
from holdfast.client.connection import Address
from holdfast.client.doctor_api import check_api
from holdfast.client.doctor_gateway import check_gateway
from holdfast.client.doctor_settings import check_settings, judge_database
from holdfast.local.fixtures import Eventually
from holdfast.local.lines import PLANTED
from holdfast.local.pooler import PgBouncer
from holdfast.local.ports import free_port
from holdfast.local.process import Guarded
from holdfast.local.servers import Postgres, Valkey
from holdfast.local.services import environment
from holdfast.local.stack import Stack
from holdfast.storage.database import Database
from holdfast.storage.diagnosis import DatabaseFacts
from holdfast.storage.keys import create_key
from holdfast.storage.migrate import latest_revision

pytestmark = pytest.mark.xdist_group("doctor")

HOLDFAST = str(Path(sys.executable).with_name("holdfast"))
SECRET = "s" * 32
HAS_PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH')}:/usr/sbin:/usr/local/sbin") is not None


@pytest.fixture(scope="module")
def stack(server_folder: Path) -> Iterator[Stack]:
    """A stack that tests here break, and mend again."""
    with Stack(server_folder / uuid4().hex) as made:
        yield made


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith("HOLDFAST_")]:
        monkeypatch.delenv(name)
    return monkeypatch


def address(stack: Stack, **changes: str) -> Address:
    fields = {"url": stack.ingest_url, "api_key": stack.api_key, "live_url": stack.live_url} | changes
    return Address(fields["url"], fields["api_key"], fields["live_url"])


def asked_of_api(where: Address, *scopes: str) -> list[Finding]:
    return list(check_api(where, list(scopes)))


def asked_of_settings(patch: pytest.MonkeyPatch, service: str = "processor", **settings: str) -> list[Finding]:
    for name, value in settings.items():
        patch.setenv(f"HOLDFAST_{name}", value)
    return list(check_settings(service))


def faults(findings: list[Finding]) -> dict[str, Finding]:
    return {each.check: each for each in findings if each.verdict in (Verdict.wrong, Verdict.warning)}


Ask = Callable[[], list[Finding]]
Awaited = Callable[[Ask, str, str], Finding]


@pytest.fixture
def awaited(eventually: Eventually) -> Awaited:
    """Asks until there is a fault of this check whose summary has these words."""

    def wait(ask: Ask, check: str, said: str) -> Finding:
        found: list[Finding] = eventually(
            lambda: [each for each in faults(ask()).values() if each.check == check and said in each.summary],
            message=f"no fault of {check}: {said}", timeout_seconds=60,
        )  # fmt: skip
        return found[0]

    return wait


def a_key(stack: Stack, *scopes: str) -> str:
    database = Database(stack.database_url, application_name="test", pool_size=1)
    with database.transaction() as session:
        key = create_key(session, tenant="demo", name="doctor", scopes=scopes)
    database.close()
    return key


def run(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    return subprocess.run(
        [HOLDFAST, "doctor", *arguments], env=inherited | settings | {"NO_COLOR": "1"}, cwd="/", capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip


@contextmanager
def a_gateway(stack: Stack, **settings: str) -> Iterator[str]:
    """Another gateway, with other settings than the stack's; its address."""
    port = free_port()
    process = Guarded("other-gateway", log=stack.logs / "other-gateway.log")
    own = {
        "HOLDFAST_GATEWAY_PORT": str(port), "HOLDFAST_REDIS_URL": stack.redis.url(1), "HOLDFAST_LIVE_TOKEN_SECRET": SECRET,
    }  # fmt: skip
    process.start([sys.executable, "-m", "holdfast.gateway"], environment(own | settings))
    try:
        yield f"ws://127.0.0.1:{port}/v1/live"
    finally:
        process.stop()


# What a client sees.


def test_a_healthy_stack_has_nothing_wrong(stack: Stack) -> None:
    where = {"HOLDFAST_URL": stack.ingest_url, "HOLDFAST_API_KEY": stack.api_key}

    done = run("--scope", "operate", "--probe", "-o", "json", **where)
    for_people = run(**where)

    told = json.loads(done.stdout)
    assert (done.returncode, told["status"], done.stderr) == (0, "ok", "")
    assert {each["verdict"] for each in told["findings"]} == {"ok"}
    assert {each["check"] for each in told["findings"]} >= {
        "api", "database", "live window", "broker", "clock", "key", "scopes", "processors", "gateway",
    }  # fmt: skip
    assert for_people.returncode == 0
    assert "--probe" in for_people.stdout, "what was not checked is said"


def test_an_address_where_nothing_answers(stack: Stack) -> None:
    done = run(HOLDFAST_URL=f"http://127.0.0.1:{free_port()}", HOLDFAST_API_KEY=stack.api_key)

    assert done.returncode == 1
    assert "nothing answers at http://127.0.0.1" in done.stdout
    assert "see that ingest runs" in done.stdout


@pytest.mark.parametrize("other", ["gateway", "processor"])
def test_an_address_of_another_service(stack: Stack, other: str) -> None:
    url = stack.live_url.replace("ws:", "http:").removesuffix("/v1/live")
    found = faults(asked_of_api(address(stack, url=url if other == "gateway" else stack.metrics_url("processor"))))

    assert "HOLDFAST_URL" in found["api"].remedy


def test_no_address_and_one_that_is_none(stack: Stack) -> None:
    assert "make up" in faults(asked_of_api(Address(None, None, None)))["api"].remedy
    assert "HOLDFAST_URL" in faults(asked_of_api(address(stack, url="localhost:8080")))["api"].remedy


def test_a_key_that_is_missing_wrong_or_expired(stack: Stack) -> None:
    expired = a_key(stack, "events:read")
    stack.postgres.execute(
        "UPDATE api_key SET created_at = now() - interval '2 hours', expires_at = now() - interval '1 hour'"  # noqa: S608
        f" WHERE id = '{expired.split('_')[1]}'", database="holdfast",
    )  # fmt: skip

    missing = faults(asked_of_api(Address(stack.ingest_url, None, None)))["key"]
    unknown = faults(asked_of_api(address(stack, api_key="hf_0123456789ab_" + PLANTED)))["key"]
    over = faults(asked_of_api(address(stack, api_key=expired)))["key"]

    assert "no API key" in missing.summary
    assert "unknown here" in unknown.summary
    assert over.summary == "it has expired"
    assert all("holdfast keys create" in each.remedy for each in (missing, unknown, over))


def test_a_key_without_the_scope(stack: Stack) -> None:
    where = address(stack, api_key=a_key(stack, "events:read"))

    assert "scopes" not in faults(asked_of_api(where, "events:read"))
    found = faults(asked_of_api(where, "events:write", "operate"))["scopes"]

    assert found.summary == "the key has events:read; it lacks events:write, operate"
    assert "--scope events:read --scope events:write --scope operate" in found.remedy


def test_events_that_nobody_takes(stack: Stack) -> None:
    stack.hold("processor")
    try:
        with Client(stack.ingest_url, stack.api_key) as client:
            event_id = client.send({"type": "com.github.push", "data": {}}).event_id
        assert "processors" not in faults(asked_of_api(address(stack)))
        stack.postgres.execute(
            f"UPDATE event SET received_at = now() - interval '2 minutes' WHERE id = '{event_id}'",  # noqa: S608
            database="holdfast",
        )
        found = faults(asked_of_api(address(stack)))["processors"]
    finally:
        stack.resume("processor")

    assert "of type com.github.push" in found.summary
    assert "HOLDFAST_HANDLERS" in found.remedy


def test_a_database_that_is_behind_the_release(stack: Stack, awaited: Awaited) -> None:
    revision = stack.postgres.execute("SELECT version_num FROM holdfast_version", database="holdfast").strip()
    try:
        stack.postgres.execute("UPDATE holdfast_version SET version_num = '0001'", database="holdfast")
        found = awaited(lambda: asked_of_api(address(stack)), "database", "SchemaOutdated")
    finally:
        stack.postgres.execute(f"UPDATE holdfast_version SET version_num = '{revision}'", database="holdfast")  # noqa: S608

    assert "SchemaOutdated" in found.summary
    assert "holdfast migrate" in found.remedy


def test_a_redis_that_is_away_and_one_that_takes_no_writes(
    stack: Stack, awaited: Awaited, eventually: Eventually
) -> None:
    try:
        stack.redis.execute("REPLICAOF", "127.0.0.1", "1")
        replica = awaited(lambda: asked_of_api(address(stack)), "broker", "BrokerUnavailable")
        stack.redis.execute("REPLICAOF", "NO", "ONE")
        stack.redis.stop()
        awaited(lambda: asked_of_api(address(stack)), "live window", "LiveWindowUnavailable")
        away = faults(asked_of_api(address(stack)))
        gateway = faults(list(check_gateway(address(stack), is_probing=False)))["gateway"]
    finally:
        stack.redis.start()
        stack.redis.execute("REPLICAOF", "NO", "ONE")

    assert "read-only replica" in replica.remedy
    assert "HOLDFAST_BROKER_URL" in away["broker"].remedy
    assert "HOLDFAST_REDIS_URL" in away["live window"].remedy
    assert "HOLDFAST_REDIS_URL" in gateway.remedy
    eventually(lambda: not faults(list(check_gateway(address(stack), is_probing=False))), message="mended again")


def test_a_gateway_that_is_away_or_unknown(stack: Stack) -> None:
    away = faults(
        list(check_gateway(address(stack, live_url=f"ws://127.0.0.1:{free_port()}/v1/live"), is_probing=False))
    )

    assert "HOLDFAST_PUBLIC_LIVE_URL" in away["gateway"].remedy


def test_a_gateway_with_another_secret(stack: Stack, awaited: Awaited) -> None:
    with a_gateway(stack) as live_url:
        where = address(stack, live_url=live_url)
        found = awaited(lambda: list(check_gateway(where, is_probing=False)), "gateway", "refuses")

    assert "the same HOLDFAST_LIVE_TOKEN_SECRET" in found.remedy


def test_a_gateway_with_another_redis(stack: Stack, valkey: Valkey, redis_url: str, awaited: Awaited) -> None:
    other = {"HOLDFAST_REDIS_URL": redis_url, "HOLDFAST_LIVE_TOKEN_SECRET": stack._secret}
    with a_gateway(stack, **other) as live_url:
        where = address(stack, live_url=live_url)
        empty = awaited(lambda: list(check_gateway(where, is_probing=False)), "gateway", "cannot serve now")
        valkey.execute("HSET", "live:revocations", "copied", "0")
        deaf = awaited(lambda: list(check_gateway(where, is_probing=True)), "live window", "did not hear")

    assert "maintenance" in empty.remedy
    assert "the same HOLDFAST_REDIS_URL" in deaf.remedy


def test_clocks_that_are_apart() -> None:
    assert clock_finding("ingest", 4.0).verdict is Verdict.ok
    apart = clock_finding("ingest", -90.0)
    assert (apart.verdict, apart.summary) == (Verdict.warning, "the clock of ingest is 90 s behind this machine's")
    assert report([apart])["status"] == "ok", "a warning is no fault"


# What a machine with the settings sees.


def test_settings_of_a_healthy_stack(stack: Stack, no_settings: pytest.MonkeyPatch, eventually: Eventually) -> None:
    described = stack.describe()
    own = {
        "DATABASE_URL": described["database_url"], "BROKER_URL": described["broker_url"],
        "REDIS_URL": described["redis_url"], "LIVE_TOKEN_SECRET": SECRET,
    }  # fmt: skip

    eventually(lambda: faults(asked_of_settings(no_settings, "ingest", **own)) == {})

    done = run("--settings", "ingest", "-o", "json", **{f"HOLDFAST_{name}": value for name, value in own.items()})
    assert (done.returncode, json.loads(done.stdout)["status"]) == (0, "ok"), done.stdout


def test_a_setting_that_is_unknown_missing_or_invalid(no_settings: pytest.MonkeyPatch) -> None:
    found = asked_of_settings(no_settings, "gateway", LIVE_TOKEN_SECRETS=SECRET, GATEWAY_PORT="many")

    told = [each.summary for each in found if each.verdict is Verdict.wrong]
    assert "HOLDFAST_LIVE_TOKEN_SECRETS is not a setting; did you mean HOLDFAST_LIVE_TOKEN_SECRET?" in told
    assert any(each.startswith("HOLDFAST_LIVE_TOKEN_SECRET: ") for each in told)
    assert any(each.startswith("HOLDFAST_GATEWAY_PORT: ") for each in told)
    assert found[-1].verdict is Verdict.unchecked


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda url: url.replace("/test_", "/gone_"), "correct the name"),
        (lambda url: url.replace("postgres:", "postgres:x"), "check user and password"),
        (lambda url: url.replace("127.0.0.1", "nowhere.invalid"), "correct the host"),
        (lambda _: f"postgresql://postgres@127.0.0.1:{free_port()}/x", "start PostgreSQL"),
    ],
    ids=["no such database", "password", "host", "port"],
)
def test_a_database_that_is_not_reached(
    database_url: str, redis_url: str, no_settings: pytest.MonkeyPatch, change: Callable[[str], str], said: str
) -> None:
    own = {"DATABASE_URL": change(database_url), "BROKER_URL": redis_url, "REDIS_URL": redis_url}

    assert said in faults(asked_of_settings(no_settings, **own))["database"].remedy


@pytest.mark.parametrize(
    ("create", "then", "summary", "remedy"),
    [
        ("template0", "", "never migrated", "holdfast migrate"),
        ("holdfast_template", "UPDATE holdfast_version SET version_num = '0003'", "revision 0003", "holdfast migrate"),
        ("template0 ENCODING 'LATIN1' LOCALE 'C'", "", "encoding is LATIN1", "ENCODING 'UTF8'"),
        ("holdfast_template", "ALTER DATABASE {name} SET default_transaction_read_only = on", "no writes", "primary"),
    ],
)
def test_a_database_that_cannot_be_used(
    postgres: Postgres,
    redis_url: str,
    no_settings: pytest.MonkeyPatch,
    create: str,
    then: str,
    summary: str,
    remedy: str,
) -> None:
    name = f"doctor_{uuid4().hex}"
    postgres.execute(f"CREATE DATABASE {name} TEMPLATE {create}")
    if then:
        postgres.execute(then.format(name=name), database=name)

    own = {"DATABASE_URL": postgres.url(name), "BROKER_URL": redis_url, "REDIS_URL": redis_url}
    found = [each for each in asked_of_settings(no_settings, **own) if each.check == "database"]

    told = [each for each in found if summary in each.summary]
    assert [each.verdict for each in told] == [Verdict.wrong], found
    assert remedy in told[0].remedy
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


class StatementPooler(PgBouncer):
    """PgBouncer as it must not be set up."""

    def prepare(self) -> None:
        super().prepare()
        ini = self.folder / "pgbouncer.ini"
        ini.write_text(ini.read_text().replace("pool_mode = transaction", "pool_mode = statement"))


@pytest.mark.skipif(not HAS_PGBOUNCER, reason="pgbouncer is not installed")
def test_a_pooler_in_statement_mode(
    postgres: Postgres, database_url: str, redis_url: str, no_settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pooler = StatementPooler(tmp_path / "pooler", postgres)
    pooler.start()
    try:
        url = pooler.url(database_url.rpartition("/")[2])
        found = faults(asked_of_settings(no_settings, DATABASE_URL=url, BROKER_URL=redis_url, REDIS_URL=redis_url))
    finally:
        pooler.stop()

    assert "pool_mode to transaction" in found["database"].remedy, found["database"].summary


@pytest.mark.parametrize(
    ("changes", "verdict", "said"),
    [
        ({"server_version": 130_014}, Verdict.wrong, "PostgreSQL 13"),
        ({"connection_count": 96}, Verdict.warning, "96 of 97 connections are taken"),
        ({"revision": "0010"}, Verdict.wrong, "it is at revision 0010, and this release needs"),
        ({}, Verdict.warning, f"it is at revision {latest_revision()}, and this release brings 9999"),
    ],
)
def test_a_server_that_cannot_be_made_here(changes: dict[str, Any], verdict: Verdict, said: str) -> None:
    usual: dict[str, Any] = {
        "encoding": "UTF8", "server_version": 180_006, "is_read_only": False, "revision": latest_revision(),
        "ahead_seconds": 0.0, "connection_count": 3, "max_connections": 97, "services": frozenset(),
    }  # fmt: skip

    assert judge_database(DatabaseFacts(**usual), newest=latest_revision()) == []
    [found] = judge_database(DatabaseFacts(**usual | changes), newest=latest_revision() if changes else "9999")

    assert (found.verdict, found.check) == (verdict, "database")
    assert said in found.summary


def test_nobody_works_on_the_database(database_url: str, redis_url: str, no_settings: pytest.MonkeyPatch) -> None:
    own = {"DATABASE_URL": database_url, "BROKER_URL": redis_url, "REDIS_URL": redis_url}

    found = faults(asked_of_settings(no_settings, **own))

    assert found.keys() == {"processor", "maintenance"}
    assert "python -m holdfast.processor" in found["processor"].remedy
    assert "python -m holdfast.maintenance" in found["maintenance"].remedy


def test_events_of_a_type_that_nobody_serves(stack: Stack, no_settings: pytest.MonkeyPatch) -> None:
    described = stack.describe()
    own = {name.upper(): described[name] for name in ("database_url", "broker_url", "redis_url")}
    type_ = f"com.acme.nobody.{uuid4().hex}"
    with Client(stack.ingest_url, stack.api_key) as client:
        stack.hold("processor")
        event_id = client.send({"type": type_, "data": {}}).event_id
        stack.postgres.execute(
            f"UPDATE processing_state SET unserved_type = '{type_}', waiting_since = now(),"  # noqa: S608
            f" available_at = now() + interval '1 hour' WHERE event_id = '{event_id}'", database="holdfast",
        )  # fmt: skip
        found = faults(asked_of_settings(no_settings, **own))
        client.discard(event_id)
        stack.resume("processor")

    assert type_ in found["handlers"].summary
    assert "HOLDFAST_HANDLERS" in found["handlers"].remedy
    assert "processor" in found


@pytest.mark.parametrize("wrong", ["broker_url", "redis_url"])
def test_services_that_use_another_redis_than_these_settings(
    stack: Stack, redis_url: str, no_settings: pytest.MonkeyPatch, eventually: Eventually, wrong: str
) -> None:
    described = stack.describe()
    own = {name.upper(): described[name] for name in ("database_url", "broker_url", "redis_url")}

    found = eventually(
        lambda: faults(asked_of_settings(no_settings, **own | {wrong.upper(): redis_url})), message="nothing was wrong"
    )

    check = {"broker_url": "broker", "redis_url": "live window"}[wrong]
    assert found.keys() == {check}
    assert f"the same HOLDFAST_{wrong.upper()}" in found[check].remedy


def test_a_redis_that_is_away_replicates_or_forgets(
    database_url: str, valkey: Valkey, redis_url: str, no_settings: pytest.MonkeyPatch
) -> None:
    own = {"DATABASE_URL": database_url, "BROKER_URL": redis_url, "REDIS_URL": redis_url}
    try:
        valkey.execute("CONFIG", "SET", "maxmemory", "100mb")
        valkey.execute("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        forgetful = faults(asked_of_settings(no_settings, **own))
        valkey.execute("CONFIG", "SET", "maxmemory-policy", "noeviction")
        valkey.execute("REPLICAOF", "127.0.0.1", "1")
        replica = faults(asked_of_settings(no_settings, **own))
    finally:
        valkey.execute("REPLICAOF", "NO", "ONE")
        valkey.execute("CONFIG", "SET", "maxmemory-policy", "noeviction")
        valkey.execute("CONFIG", "SET", "maxmemory", "0")
    away = faults(asked_of_settings(no_settings, **own | {"BROKER_URL": f"redis://127.0.0.1:{free_port()}/0"}))

    assert forgetful["live window"].verdict is Verdict.wrong
    assert forgetful["broker"].verdict is Verdict.warning
    assert "noeviction" in forgetful["live window"].remedy
    assert "primary" in replica["broker"].remedy
    assert "HOLDFAST_BROKER_URL" in away["broker"].remedy


def test_findings_name_no_password(no_settings: pytest.MonkeyPatch) -> None:
    url = f"postgresql://postgres:hunter2@127.0.0.1:{free_port()}/x"
    redis = f"redis://:hunter2@127.0.0.1:{free_port()}/0"

    found: list[Any] = asked_of_settings(no_settings, DATABASE_URL=url, BROKER_URL=redis, REDIS_URL=redis)

    assert faults(found).keys() >= {"database", "broker", "live window"}
    assert "hunter2" not in str(found)
