"""A database with events to execute, the live window, and workers as processes, on real servers."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from sqlalchemy import Row, text

from holdfast.domain.event import Doorbell, Lease, NewEvent, canonical_json
from holdfast.domain.update import Update
from holdfast.local.fixtures import Eventually
from holdfast.local.process import log_lines
from holdfast.local.servers import Postgres, Valkey, free_port
from holdfast.local.services import environment
from holdfast.messaging.announce import Announcer
from holdfast.messaging.brokers import open_bell
from holdfast.messaging.live import Publisher, open_publisher, topic_keys
from holdfast.processor import Handlers
from holdfast.processor.attempt.execute import Executor
from holdfast.runtime.ids import uuid7
from holdfast.storage import claims, leases
from holdfast.storage.database import Database
from holdfast.storage.events import record
from holdfast.storage.sealing import open_sealing

HERE = Path(__file__).parent

TENANT = "acme"


class Events:
    """Events in a database: makes them, moves their times, and says where they stand and what was done."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.run("CREATE TABLE effect (event_id uuid, note text)")

    def record(self, type_: str, data: Any = None, **attributes: Any) -> UUID:
        """A new event, due at once, at version 1."""
        kept = {"data_bytes": data} if isinstance(data, bytes) else {"data_json": canonical_json(data)}
        event = NewEvent(id=uuid7(), tenant=TENANT, source="/test", ce_id=uuid4().hex, type=type_, **kept, **attributes)
        with self.database.transaction() as session:
            record(session, [event], grace_seconds=3600)
        return event.id

    def record_many(self, type_: str, count: int, data: Any = None) -> None:
        """New events, due for an hour, that no doorbell was rung for."""
        new = [
            NewEvent(
                id=uuid7(), tenant=TENANT, source="/test", ce_id=uuid4().hex, type=type_, data_json=canonical_json(data)
            )
            for _ in range(count)
        ]
        with self.database.transaction() as session:
            record(session, new, grace_seconds=3600)
        self.run("UPDATE processing_state SET available_at = now() - interval '1 h' WHERE state = 'queued'")

    def count(self, state: str, type_: str = "%") -> int:
        """Events of a type in a state."""
        statement = (
            "SELECT count(*) FROM processing_state JOIN event ON id = event_id WHERE state = :s AND type LIKE :t"
        )
        with self.database.transaction() as session:
            return int(session.scalar(text(statement), {"s": state, "t": type_}) or 0)

    def row(self, event_id: UUID) -> Row[Any]:
        """The ``processing_state``, with ``due_in`` seconds."""
        return self.rows(
            "SELECT *, extract(epoch FROM available_at - statement_timestamp())::float8 AS due_in"
            " FROM processing_state WHERE event_id = :id",
            event_id,
        )[0]

    def state(self, event_id: UUID) -> str:
        return str(self.row(event_id).state)

    def effects(self, event_id: UUID) -> int:
        """How often effects of its handler were committed."""
        return len(self.rows("SELECT FROM effect WHERE event_id = :id", event_id))

    def errors(self, event_id: UUID) -> list[Row[Any]]:
        """Its ``attempt_error`` rows, oldest first."""
        return self.rows("SELECT * FROM attempt_error WHERE event_id = :id ORDER BY id", event_id)

    def error(self, event_id: UUID) -> Row[Any]:
        """The last attempt's error."""
        return self.errors(event_id)[-1]

    def log(self, event_id: UUID) -> list[Row[Any]]:
        """Its rows in the processed-event log."""
        return self.rows("SELECT * FROM processed_event_log WHERE event_id = :id", event_id)

    def in_outbox(self, event_id: UUID) -> list[int]:
        """Versions that a relay would look at."""
        statement = """
            SELECT u.version FROM event_update u, outbox_cursor c WHERE u.event_id = :id AND NOT pg_visible_in_snapshot(
                CAST(CAST(u.transaction_id AS text) AS xid8), CAST(c.confirmed AS pg_snapshot)) ORDER BY u.version"""
        return [row.version for row in self.rows(statement, event_id)]

    def make_due(self) -> None:
        """Let the waits pass."""
        self.run(
            "UPDATE processing_state SET available_at = now() - interval '1 s', next_dispatch_at = now() - interval '1 s'"
            " WHERE state IN ('queued', 'failed')"
        )

    def recover(self) -> list[Update]:
        """What maintenance does once leases have expired; the wait after it passes too."""
        self.run("UPDATE processing_state SET lease_expires_at = now() - interval '1 s' WHERE state = 'processing'")
        with self.database.transaction() as session:
            recovered = leases.recover_expired(session, limit=10)
        self.make_due()
        return recovered

    def take_away(self, event_id: UUID) -> Lease:
        """Recover the event from its worker and give it to another one."""
        self.recover()
        with self.database.transaction() as session:
            version = self.row(event_id).version
            [(lease, _)] = claims.claim_events(session, [(event_id, version)], owner="other", lease_seconds=60)
        return lease

    def scalar(self, statement: str) -> Any:
        """One value."""
        with self.database.transaction() as session:
            return session.scalar(text(statement))

    def rows(self, statement: str, event_id: UUID | None = None) -> list[Row[Any]]:
        with self.database.transaction() as session:
            return list(session.execute(text(statement), {"id": event_id}))

    def run(self, statement: str) -> None:
        with self.database.transaction() as session:
            session.execute(text(statement))


class Redis:
    """What is in the live window, and the bell."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = redis.Redis.from_url(url)

    def published(self, event_id: UUID) -> list[dict[str, Any]]:
        """Updates of an event, in order."""
        entries: Any = self.client.xrange(topic_keys(TENANT, f"event:{event_id}").stream)
        return [json.loads(fields[b"u"]) for _, fields in entries]

    def told(self, event_id: UUID) -> list[tuple[str, int, int]]:
        """``(state, version, step)`` of each update."""
        return [(update["state"], update["version"], update["step"]) for update in self.published(event_id)]

    def missing(self, *keys: tuple[UUID, int]) -> list[int]:
        """Versions of these updates that were not published."""
        publisher = open_publisher(self.url, timeout_seconds=5, window_seconds=600, window_updates=100)
        found = publisher.missing(keys)
        publisher.close()
        return [version for _, version in found]

    def ring(self, *doorbells: tuple[UUID, int]) -> None:
        bell = open_bell(self.url, timeout_seconds=2, is_consumer=False)
        bell.ring([Doorbell(*doorbell) for doorbell in doorbells])
        bell.close()


class Worker:
    """``python -m holdfast.processor``."""

    def __init__(self, log: Path, settings: dict[str, str]) -> None:
        self.url = f"http://127.0.0.1:{settings['HOLDFAST_METRICS_PORT']}"
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "holdfast.processor"],
                env=environment(settings) | {"PYTHONPATH": f"{HERE}{os.pathsep}{log.parent}", "TMPDIR": str(log.parent)},
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    def get(self, path: str) -> tuple[int, str]:
        """Status and body; 0 while nobody answers."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:  # noqa: S310
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read().decode()
        except OSError:
            return 0, ""

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return self.get("/readyz")[0] == 200

    def has_logged(self, message: str) -> bool:
        return any(line["message"] == message for line in self.lines())

    def is_stopping(self) -> bool:
        """Whether the process that executes has begun to stop."""
        return any(line["message"] == "stopping" and line["worker"] != "suspects" for line in self.lines())

    def lines(self) -> list[dict[str, Any]]:
        """The log. A line that is not JSON fails the test."""
        return log_lines(self.log)

    def children(self) -> list[int]:
        """The processes for suspects and for all others, in the order of their start."""
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in listed.stdout.split()]

    def pid_of_worker(self) -> int:
        """The process that executes."""
        return self.children()[-1]

    def kill(self) -> None:
        """With its children, each of which leads a process group of its own."""
        for leader in (self.process.pid, *self.children()):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(leader, signal.SIGKILL)
        self.process.wait(10)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, application_name="test", pool_size=8)
    yield made
    made.close()


@pytest.fixture
def make_stored() -> Callable[[Database], Events]:
    return Events


@pytest.fixture
def stored(database: Database) -> Events:
    return Events(database)


@pytest.fixture
def make_live() -> Iterator[Callable[[str], Redis]]:
    with contextlib.ExitStack() as opened:

        def make(url: str) -> Redis:
            made = Redis(url)
            opened.callback(made.client.close)
            return made

        yield make


@pytest.fixture
def live(make_live: Callable[[str], Redis], redis_url: str) -> Redis:
    return make_live(redis_url)


class OneAtATime(Executor):
    """Claims and runs in the calling thread."""

    def execute(self, event_id: UUID, version: int) -> None:
        for lease in self.claim([Doorbell(event_id, version)]):
            self.run(lease)

    def run_together(self, leases: Sequence[Lease]) -> None:
        """Run and settle the events of a group."""
        ends: SimpleQueue[None] = SimpleQueue()
        self.run_group(leases, lambda: ends.put(None))
        self.settle()
        ends.get(timeout=60)
        assert ends.empty(), "the group ends once"


@pytest.fixture
def executor(database_url: str, redis_url: str) -> Iterator[Callable[..., OneAtATime]]:
    """An executor in this process; jitter is half of what it can be. Takes the address of another Redis or database."""
    with contextlib.ExitStack() as opened:

        def make(
            handlers: Handlers, *, redis_url: str = redis_url, database_url: str = database_url,
            publisher: Publisher | None = None,
            lease_seconds: float = 60, statement_timeout_seconds: float = 30, encryption_keys: str | None = None,
            **options: Any,
        ) -> OneAtATime:  # fmt: skip
            claims, effects = (
                Database(
                    database_url, application_name="executor", pool_size=20, is_durable=is_durable,
                    statement_timeout_seconds=statement_timeout_seconds, sealing=open_sealing(encryption_keys),
                )
                for is_durable in (False, True)
            )  # fmt: skip
            window = publisher or open_publisher(redis_url, timeout_seconds=1, window_seconds=60, window_updates=1000)
            bell = open_bell(redis_url, timeout_seconds=1, is_consumer=False)
            for each in (claims, effects, window, bell):
                opened.callback(each.close)
            return OneAtATime(
                handlers, claims=claims, effects=effects,
                announcer=Announcer(window, bell), owner="test",
                lease_seconds=lease_seconds, draw=lambda: 0.5, **options,
            )  # fmt: skip

        yield make


@pytest.fixture
def closed_url() -> str:
    """The address of a Redis that is down."""
    return f"redis://127.0.0.1:{free_port()}/0"


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A Valkey that the test may stop."""
    server = Valkey(tmp_path / "valkey")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[Postgres]:
    """A PostgreSQL that the test may stop."""
    server = Postgres(tmp_path / "postgres", is_durable=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def launch(tmp_path: Path, database_url: str, redis_url: str) -> Iterator[Callable[..., Worker]]:
    """Start a worker. Settings as keywords, without ``HOLDFAST_``."""
    with contextlib.ExitStack() as running:

        def launch_one(**settings: str) -> Worker:
            values = {
                "DATABASE_URL": database_url, "BROKER_URL": redis_url, "REDIS_URL": redis_url, "LOG_FORMAT": "json",
                "METRICS_PORT": str(free_port()), "HANDLERS": "sample_handlers:handlers", "PROCESSOR_PROCESSES": "1",
            } | settings  # fmt: skip
            made = Worker(
                tmp_path / f"worker-{uuid4().hex}.log", {f"HOLDFAST_{name}": value for name, value in values.items()}
            )
            running.callback(made.kill)
            return made

        yield launch_one


@pytest.fixture
def start(launch: Callable[..., Worker], eventually: Eventually) -> Callable[..., Worker]:
    """Start a worker and wait until it is ready."""

    def start_one(**settings: str) -> Worker:
        made = launch(**settings)
        eventually(made.is_ready, timeout_seconds=60, message="the worker is ready")
        return made

    return start_one
