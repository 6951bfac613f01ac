"""What a machine with a service's settings can see: its settings, PostgreSQL and both Redis servers.

Needs the packages of the extra ``admin``; nothing else of the client imports this module at its start.
"""

from collections.abc import Generator, Iterator

from holdfast.client.checkup import Finding, clock_finding, ok, unchecked, warning, wrong
from holdfast.domain.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    DatabaseUnsuitable,
    LiveWindowUnavailable,
    StatementTooSlow,
)
from holdfast.messaging.diagnosis import RedisFacts, look_at_redis
from holdfast.runtime import settings as configured
from holdfast.runtime.settings import BrokerSettings, LiveSettings, ProcessSettings, StorageSettings
from holdfast.storage.diagnosis import DatabaseFacts, look_at_database
from holdfast.storage.migrate import latest_revision
from holdfast.storage.schema import MINIMUM_SERVER, REQUIRED_REVISION

__all__ = ["check_database", "check_redis", "check_settings", "judge_database"]

NEARLY_ALL = 0.9
"""Share of the server's connections from which the next service may get none."""

BACKLOG_SECONDS = 60.0

KINDS: dict[str, type[ProcessSettings]] = {
    "ingest": configured.IngestSettings,
    "processor": configured.ProcessorSettings,
    "maintenance": configured.MaintenanceSettings,
    "gateway": configured.GatewaySettings,
}

CONNECTING = {
    "statement pooling": "set PgBouncer's pool_mode to transaction (or session) for this database",
    "password authentication failed": "check user and password in HOLDFAST_DATABASE_URL; percent-encode special characters",
    "does not exist": "create the database or role that HOLDFAST_DATABASE_URL names, or correct the name",
    "too many clients": "raise max_connections, put PgBouncer before it, or lower HOLDFAST_DATABASE_POOL_SIZE",
    "remaining connection slots": "raise max_connections, put PgBouncer before it, or lower HOLDFAST_DATABASE_POOL_SIZE",
    "translate host name": "correct the host in HOLDFAST_DATABASE_URL",
    "Connection refused": "start PostgreSQL, or correct host and port in HOLDFAST_DATABASE_URL",
}
"""Words of libpq, PostgreSQL or PgBouncer, and what to do."""


def check_settings(service: str) -> Iterator[Finding]:
    """Findings about the settings in the environment, as ``service`` would read them, and about the servers they name."""
    settings, problems = configured.inspect(KINDS[service])
    for problem in problems:
        yield wrong("settings", problem, "mend the variable; docs/operations.md lists all of them")
    if settings is None:
        yield unchecked("servers", "PostgreSQL and Redis", "mend the settings first")
        return
    if not problems:
        yield ok("settings", f"{service} can start with them")
    database = None
    if isinstance(settings, StorageSettings):
        database = yield from check_database(settings.database_url.get_secret_value())
    broker = live = None
    if isinstance(settings, BrokerSettings):
        broker = yield from check_redis("broker", "HOLDFAST_BROKER_URL", settings.broker_url.get_secret_value())
    if isinstance(settings, LiveSettings):
        live = yield from check_redis("live window", "HOLDFAST_REDIS_URL", settings.redis_url.get_secret_value())
    yield from _together(database, broker, live)


def check_database(url: str) -> Generator[Finding, None, DatabaseFacts | None]:
    """Findings about PostgreSQL; returns what was seen."""
    try:
        facts = look_at_database(url, known_revision=REQUIRED_REVISION)
    except (ConfigurationError, DatabaseUnavailable, DatabaseUnsuitable, StatementTooSlow) as exc:
        remedy = next((remedy for words, remedy in CONNECTING.items() if words in str(exc)), "see the server's log")
        yield wrong("database", str(exc), remedy)
        return None
    found = judge_database(facts, newest=latest_revision())
    yield from found or [ok("database", f"PostgreSQL {facts.server_version // 10_000} at revision {facts.revision}")]
    yield clock_finding("PostgreSQL", facts.ahead_seconds)
    return facts


def judge_database(facts: DatabaseFacts, *, newest: str | None) -> list[Finding]:
    """What is not right about a database; nothing if all is."""
    return [*_server(facts), *_schema(facts, newest)]


def _server(facts: DatabaseFacts) -> Iterator[Finding]:
    if facts.server_version < MINIMUM_SERVER:
        yield wrong(
            "database", f"PostgreSQL {facts.server_version // 10_000}",
            f"move to PostgreSQL {MINIMUM_SERVER // 10_000} or newer",
        )  # fmt: skip
    if facts.encoding != "UTF8":
        yield wrong(
            "database", f"its encoding is {facts.encoding}, which cannot hold every event",
            "CREATE DATABASE name TEMPLATE template0 ENCODING 'UTF8', and migrate that",
        )  # fmt: skip
    if facts.is_read_only:
        yield wrong(
            "database", "it takes no writes: a standby, or set to read-only",
            "name the primary in HOLDFAST_DATABASE_URL; with several hosts add ?target_session_attrs=read-write",
        )  # fmt: skip
    if facts.connection_count >= NEARLY_ALL * facts.max_connections:
        yield warning(
            "database", f"{facts.connection_count} of {facts.max_connections} connections are taken",
            "raise max_connections, put PgBouncer before it, or lower HOLDFAST_DATABASE_POOL_SIZE",
        )  # fmt: skip


def _schema(facts: DatabaseFacts, newest: str | None) -> Iterator[Finding]:
    if facts.revision is None:
        yield wrong("database", "it was never migrated", "run 'holdfast migrate'; or is it another service's database?")
    elif facts.revision < REQUIRED_REVISION:
        yield wrong(
            "database", f"it is at revision {facts.revision}, and this release needs {REQUIRED_REVISION}",
            "run 'holdfast migrate'",
        )  # fmt: skip
    elif newest is not None and facts.revision < newest:
        yield warning(
            "database",
            f"it is at revision {facts.revision}, and this release brings {newest}",
            "run 'holdfast migrate'",
        )


def check_redis(check: str, setting: str, url: str) -> Generator[Finding, None, RedisFacts | None]:
    """Findings about one Redis; returns what was seen."""
    try:
        facts = look_at_redis(url)
    except LiveWindowUnavailable as exc:
        yield wrong(check, f"the Redis of {setting} cannot be used: {exc}", f"start it, or correct {setting}")
        return None
    if facts.is_replica:
        yield wrong(check, f"the Redis of {setting} is a read-only replica", f"name its primary in {setting}")
    elif facts.max_memory_bytes and facts.eviction_policy != "noeviction":
        lost = "doorbells: events start late" if check == "broker" else "updates and the list of revoked tokens"
        verdict = warning if check == "broker" else wrong
        yield verdict(
            check, f"the Redis of {setting} drops keys at its limit ({facts.eviction_policy}), and with them {lost}",
            "set maxmemory-policy noeviction, and maxmemory to what the live window takes",
        )  # fmt: skip
    else:
        yield ok(check, f"the Redis of {setting} answers and takes writes")
    yield clock_finding(f"the Redis of {setting}", facts.ahead_seconds)
    return facts


def _together(database: DatabaseFacts | None, broker: RedisFacts | None, live: RedisFacts | None) -> Iterator[Finding]:
    """What only shows when they are compared."""
    if database is None or database.revision is None:
        yield unchecked("services", "who works on the database", "mend PostgreSQL first, or ask with --settings ingest")
        return
    yield from _services(database)
    has_processors, has_maintenance = (f"holdfast-{name}" in database.services for name in ("processor", "maintenance"))
    if broker is not None and has_processors and broker.listener_count == 0:
        yield wrong(
            "broker", "processors run, and none listens for doorbells in the Redis of HOLDFAST_BROKER_URL",
            "give ingest, processor and maintenance the same HOLDFAST_BROKER_URL, server and database number alike",
        )  # fmt: skip
    if live is not None and has_maintenance and not live.has_revocations:
        yield wrong(
            "live window", "maintenance runs, and the Redis of HOLDFAST_REDIS_URL has no copy of the revoked tokens",
            "give all services the same HOLDFAST_REDIS_URL, server and database number alike; right after a start, wait"
            " a few seconds and ask again",
        )  # fmt: skip


def _services(database: DatabaseFacts) -> Iterator[Finding]:
    for name, remedy in (
        ("processor", "start 'python -m holdfast.processor' with this HOLDFAST_DATABASE_URL: nobody runs handlers"),
        (
            "maintenance",
            "start 'python -m holdfast.maintenance worker' with this HOLDFAST_DATABASE_URL: nobody recovers",
        ),
    ):
        if f"holdfast-{name}" in database.services:
            yield ok(name, "it has a connection to this database")
        else:
            yield wrong(name, "none has a connection to this database", remedy)
    if database.unserved:
        yield wrong(
            "handlers", f"events wait for types that no processor serves: {', '.join(database.unserved)}",
            "start a processor whose HOLDFAST_HANDLERS serve them, or correct the type at the sender;"
            " 'holdfast handlers check' shows what a package serves",
        )  # fmt: skip
    elif database.oldest_due_seconds > BACKLOG_SECONDS:
        yield warning(
            "handlers", f"the oldest due event has been waiting for {database.oldest_due_seconds:.0f} s",
            "add processors, or look at which handler takes long (holdfast_handler_duration_seconds)",
        )  # fmt: skip
