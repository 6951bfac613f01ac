"""A database with events to look after, a broker and a live window on real servers, and maintenance as processes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from sqlalchemy import Row, text

from holdfast.domain.event import Lease, NewEvent
from holdfast.domain.schedule import ScheduleSpec
from holdfast.domain.state import State
from holdfast.domain.transitions import AttemptError, Completion, bury, settle
from holdfast.local.fixtures import Eventually
from holdfast.local.process import log_lines
from holdfast.local.servers import Postgres, Valkey, free_port
from holdfast.local.services import environment
from holdfast.messaging.announce import Announcer
from holdfast.messaging.bell import Bell
from holdfast.messaging.brokers import open_bell
from holdfast.messaging.doorbell import QUEUE, SUSPECT_QUEUE
from holdfast.messaging.live import Publisher, open_publisher, topic_keys
from holdfast.runtime.cron import next_tick
from holdfast.runtime.ids import uuid7
from holdfast.storage.audit import Actor
from holdfast.storage.claims import claim_events
from holdfast.storage.database import Database
from holdfast.storage.events import record
from holdfast.storage.filters import EventFilter
from holdfast.storage.lifecycle import apply
from holdfast.storage.replays import Replay, start_replay
from holdfast.storage.schedules import Put, put_schedule

TENANT = "acme"


class Events:
    """Events in a database: makes them, moves their times into the past, and says where they stand."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, count: int = 1, *, due_seconds: float = 0) -> list[UUID]:
        """New events whose doorbell maintenance rings after ``due_seconds``."""
        events = [
            NewEvent(id=uuid7(), tenant=TENANT, source="/test", ce_id=uuid4().hex, type="test.done") for _ in range(count)
        ]  # fmt: skip
        with self._database.transaction() as session:
            record(session, events, grace_seconds=due_seconds)
        return [event.id for event in events]

    def claim(self, event_id: UUID, *, lease_seconds: float = 300) -> Lease:
        """Lease a due event, as a worker that then dies."""
        with self._database.transaction() as session:
            [(lease, _)] = claim_events(
                session, [(event_id, self.row(event_id).version)], owner="lost-worker", lease_seconds=lease_seconds
            )
        return lease

    def lost(self, count: int = 1) -> list[UUID]:
        """Events whose worker is gone and whose lease has expired."""
        event_ids = self.record(count)
        for event_id in event_ids:
            self.claim(event_id)
            self.expire(event_id)
        return event_ids

    def finished(self, count: int = 1, *, is_dead: bool = True) -> list[UUID]:
        """Dead letters, or processed events."""
        event_ids = self.record(count)
        leases = [self.claim(event_id) for event_id in event_ids]
        error, completion = AttemptError("KeyError", "no"), Completion("h", None, 1)
        with self._database.transaction() as session:
            apply(
                session,
                [
                    bury(lease.event.id, lease.token, error) if is_dead
                    else settle(lease.event.id, lease.token, completion)
                    for lease in leases
                ],
            )  # fmt: skip
        return event_ids

    def begin_replay(self, state: State = State.DEAD, *, rate: float = 1000) -> Replay:
        """A replay of all events in a state."""
        with self._database.transaction() as session:
            begun = start_replay(
                session, Actor(TENANT, "abcdefghijkl"), EventFilter(state=state), rate_per_s=rate, idempotency_key=uuid4().hex
            )  # fmt: skip
        assert isinstance(begun, Replay), begun
        return begun

    def schedule(self, name: str = "report", *, late_seconds: float = 1, **attributes: Any) -> UUID:
        """A schedule whose next tick was so long ago, rounded down to a minute; hourly unless ``cron`` says otherwise."""
        with self._database.transaction() as session:
            moment = "date_trunc('minute', now() - make_interval(secs => :late))"
            minute = session.execute(text(f"SELECT extract(minute FROM {moment})"), {"late": late_seconds}).scalar_one()  # noqa: S608
            spec = ScheduleSpec(**{"name": name, "cron": f"{minute} * * * *", "type": "test.due"} | attributes)
            made = put_schedule(session, Actor(TENANT, "abcdefghijkl"), spec, next_tick=next_tick)
            assert isinstance(made, Put), made
            due = text(f"UPDATE schedule SET next_at = {moment} WHERE id = :id")  # noqa: S608
            session.execute(due, {"late": late_seconds, "id": made.schedule.id})
        return made.schedule.id

    def expire(self, event_id: UUID) -> None:
        self.execute(
            "UPDATE processing_state SET lease_expires_at = now() - interval '1 s' WHERE event_id = :id", event_id
        )

    def make_due(self, event_id: UUID) -> None:
        self.execute(
            "UPDATE processing_state SET available_at = now() - interval '1 s', next_dispatch_at = now() - interval '1 s'"
            " WHERE event_id = :id",
            event_id,
        )

    def age_updates(self) -> None:
        """Make what was written until now a window of the outbox, and let it grow old."""
        self.execute(
            "UPDATE outbox_cursor SET until = CAST(pg_current_snapshot() AS text), until_at = now() - interval '1 min'"
        )

    def row(self, event_id: UUID) -> Row[Any]:
        """The ``processing_state``, with ``dispatch_in`` seconds until the next doorbell."""
        return self.execute(
            "SELECT *, extract(epoch FROM next_dispatch_at - now())::float8 AS dispatch_in"
            " FROM processing_state WHERE event_id = :id",
            event_id,
        )[0]

    def in_outbox(self, event_id: UUID) -> list[int]:
        """Versions that the relay has not made sure of."""
        statement = """
            SELECT u.version FROM event_update u, outbox_cursor c WHERE u.event_id = :id AND NOT pg_visible_in_snapshot(
                CAST(CAST(u.transaction_id AS text) AS xid8), CAST(c.confirmed AS pg_snapshot)) ORDER BY u.version"""
        return [row.version for row in self.execute(statement, event_id)]

    def execute(self, statement: str, event_id: UUID | None = None) -> list[Row[Any]]:
        with self._database.transaction() as session:
            result: Any = session.execute(text(statement), {"id": event_id})
            return list(result) if result.returns_rows else []


class Redis:
    """What is in the two parts of Redis."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url)

    def doorbells(self) -> list[tuple[UUID, int]]:
        """Doorbells rung and not yet heard, those of suspects last."""
        bodies = [json.loads(body) for queue in (QUEUE, SUSPECT_QUEUE) for body in self._bodies(queue)]
        return [(UUID(body["args"][0]), body["args"][1]) for body in bodies]

    def _bodies(self, queue: str) -> list[bytes]:
        bodies: Any = self.client.hvals(f"dramatiq:{queue}.msgs")
        return list(bodies)

    def forget(self) -> None:
        """Lose everything, as by FLUSHALL."""
        self.client.flushall()

    def told(self) -> list[UUID]:
        """Events in the window of their tenant's topic, one for each update, in order."""
        entries: Any = self.client.xrange(topic_keys(TENANT, f"tenant:{TENANT}").stream)
        return [UUID(json.loads(fields[b"u"])["id"]) for _, fields in entries]

    def published(self, event_id: UUID) -> list[dict[str, Any]]:
        """Updates in the live window of an event's topic."""
        entries: Any = self.client.xrange(topic_keys(TENANT, f"event:{event_id}").stream)
        return [json.loads(fields[b"u"]) for _, fields in entries]


class Maintenance:
    """``python -m holdfast.maintenance worker|scheduler``."""

    def __init__(self, role: str, log: Path, settings: dict[str, str]) -> None:
        self.url = f"http://127.0.0.1:{settings['HOLDFAST_METRICS_PORT']}"
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "holdfast.maintenance", role],
                env=environment(settings), stdout=output, stderr=output, start_new_session=True,
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

    def lines(self) -> list[dict[str, Any]]:
        """The log. A line that is not JSON fails the test."""
        return log_lines(self.log)

    def kill(self) -> None:
        """With its children: one whose master was killed takes a second to notice."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, application_name="test", pool_size=8)
    yield made
    made.close()


@pytest.fixture
def events(database: Database) -> Events:
    return Events(database)


@pytest.fixture
def in_redis(redis_url: str) -> Iterator[Redis]:
    made = Redis(redis_url)
    yield made
    made.client.close()


MakeAnnouncer = Callable[[str], Announcer]


@pytest.fixture
def make_bell() -> Iterator[Callable[[str], Bell]]:
    with contextlib.ExitStack() as opened:

        def make(url: str) -> Bell:
            made = open_bell(url, timeout_seconds=2, is_consumer=False)
            opened.callback(made.close)
            return made

        yield make


@pytest.fixture
def bell(make_bell: Callable[[str], Bell], redis_url: str) -> Bell:
    return make_bell(redis_url)


@pytest.fixture
def make_publisher() -> Iterator[Callable[[str], Publisher]]:
    with contextlib.ExitStack() as opened:

        def make(url: str) -> Publisher:
            made = open_publisher(url, timeout_seconds=1, window_seconds=600, window_updates=1000)
            opened.callback(made.close)
            return made

        yield make


@pytest.fixture
def publisher(make_publisher: Callable[[str], Publisher], redis_url: str) -> Publisher:
    return make_publisher(redis_url)


@pytest.fixture
def make_announcer(make_publisher: Callable[[str], Publisher], make_bell: Callable[[str], Bell]) -> MakeAnnouncer:
    return lambda url: Announcer(make_publisher(url), make_bell(url))


@pytest.fixture
def announcer(make_announcer: MakeAnnouncer, redis_url: str) -> Announcer:
    return make_announcer(redis_url)


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
def start(
    tmp_path: Path, database_url: str, redis_url: str, eventually: Eventually
) -> Iterator[Callable[..., Maintenance]]:
    """Start a worker and wait until it is ready, or a scheduler. Settings as keywords, without ``HOLDFAST_``."""
    with contextlib.ExitStack() as running:

        def start_one(role: str = "worker", **settings: str) -> Maintenance:
            values = {
                "DATABASE_URL": database_url, "BROKER_URL": redis_url, "REDIS_URL": redis_url, "LOG_FORMAT": "json",
                "METRICS_PORT": str(free_port()),
            } | settings  # fmt: skip
            made = Maintenance(
                role, tmp_path / f"{role}-{uuid4().hex}.log", {f"HOLDFAST_{name}": value for name, value in values.items()}
            )  # fmt: skip
            running.callback(made.kill)
            if role == "worker":
                eventually(made.is_ready, timeout_seconds=20, message="the worker is ready")
            return made

        yield start_one
