"""Stacks for breaking: all services as real processes, replicas of one with its connections led through a proxy, and a look
into the database.
"""

import contextlib
import signal
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg2

from holdfast.domain.event import Doorbell, NewEvent, canonical_json
from holdfast.local.lines import PLANTED
from holdfast.local.process import Guarded, wait_until
from holdfast.local.servers import free_port
from holdfast.local.services import SERVICES, environment, is_ready
from holdfast.local.stack import TENANT, Stack
from holdfast.messaging.broker import redis_broker
from holdfast.messaging.doorbell import message_of
from holdfast.runtime.ids import uuid7
from holdfast.storage.database import Database
from holdfast.storage.events import record

__all__ = [
    "LEASE_SECONDS",
    "Replica",
    "Rows",
    "chaos_stack",
    "fill",
    "held_lock",
    "metric",
    "replica",
    "ring",
    "through",
]

HERE = str(Path(__file__).parent)

LEASE_SECONDS = 2

EFFECT = "CREATE TABLE effect (event_id uuid, attempt int)"


@contextlib.contextmanager
def chaos_stack(folder: Path, **settings: str) -> Iterator[Stack]:
    """A stack with short leases and the handlers of this folder. Settings as keywords, ``HOLDFAST_`` included."""
    defaults = {
        "HOLDFAST_LEASE_SECONDS": str(LEASE_SECONDS),
        "HOLDFAST_PROCESSOR_PROCESSES": "1",  # on every machine
        "HOLDFAST_HANDLERS": "handlers_late:handlers",
        "HOLDFAST_BACKLOG_LIMIT_SECONDS": "0",  # a long backlog is made on purpose, and ingest is to add to it
    }
    with Stack(folder / uuid4().hex, settings=defaults | settings, python_path=HERE) as stack:
        stack.postgres.execute(EFFECT, database="holdfast")
        yield stack


class Replica:
    """One more process of a service of a stack."""

    def __init__(self, process: Guarded, metrics_url: str, url: str) -> None:
        self.process = process
        self.url = url
        self._metrics_url = metrics_url

    def send(self, signal_number: int) -> None:
        """To all its processes."""
        for pid in self.process.pids():
            self.process.send(signal_number, pid=pid)

    def kill(self) -> None:
        """SIGKILL all its processes, and see their end."""
        self.send(signal.SIGKILL)
        self.process.join(10)

    def metric(self, name: str) -> float:
        """Value of a metric without labels."""
        return metric(self._metrics_url, name)


@contextlib.contextmanager
def replica(stack: Stack, service_name: str, **settings: str) -> Iterator[Replica]:
    """Start one more process of a service, with settings (without ``HOLDFAST_``) on top of the stack's."""
    service = next(service for service in SERVICES if service.name == service_name)
    metrics, port = free_port(), free_port()
    own = {"METRICS_PORT": str(metrics), "INGEST_PORT": str(port), "NODE_NAME": "replica", **settings}
    process = Guarded(service_name, log=stack.logs / f"{service_name}-{uuid4().hex}.log")
    values = stack._settings_of(service) | {f"HOLDFAST_{name}": value for name, value in own.items()}
    process.start(service.command, environment(values))
    try:
        url = f"http://127.0.0.1:{metrics}"
        wait_until(lambda: is_ready(url), process=process, seconds=60, what=f"a replica of {service_name}")
        yield Replica(process, url, f"http://127.0.0.1:{port}")
    finally:
        for pid in process.pids():  # one that a test has paused can not stop
            process.send(signal.SIGCONT, pid=pid)
        process.stop()


def through(url: str, port: int) -> str:
    """The address of a server by way of a proxy on another port."""
    head, _, tail = url.rpartition("@127.0.0.1:")
    return f"{head}@127.0.0.1:{port}/{tail.partition('/')[2]}"


def metric(metrics_url: str, name: str) -> float:
    """Value of a service's metric without labels."""
    with urllib.request.urlopen(f"{metrics_url}/metrics", timeout=10) as answer:  # noqa: S310 (an address of our own)
        for line in answer.read().decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
    raise AssertionError(f"{metrics_url} has no metric {name}")


def fill(database_url: str, count: int, type_: str, data: Any = None, *, grace_seconds: float = 3600) -> list[str]:
    """Record events as ingest does, in batches; returns their ids. Nobody is told of them.

    ``grace_seconds``: when maintenance rings for them.
    """
    database = Database(database_url, application_name="test", pool_size=1)
    ids: list[str] = []
    try:
        for start in range(0, count, 500):
            batch = [_new_event(type_, data) for _ in range(min(500, count - start))]
            with database.transaction() as session:
                record(session, batch, grace_seconds=grace_seconds)
            ids += [str(event.id) for event in batch]
    finally:
        database.close()
    return ids


def ring(stack: Stack, event_ids: Sequence[str], *, version: int = 1, copies: int = 1) -> None:
    """Put doorbells into the broker, all in one call."""
    broker = redis_broker(stack.redis.url(0), timeout_seconds=10, is_consumer=False)
    try:
        broker.enqueue_many([message_of(Doorbell(UUID(each), version)) for each in event_ids for _ in range(copies)])
    finally:
        broker.client.close()


def _new_event(type_: str, data: Any) -> NewEvent:
    return NewEvent(
        id=uuid7(), tenant=TENANT, source="/chaos", ce_id=uuid4().hex, type=type_,
        data_json=canonical_json({"planted": PLANTED} | (data or {})),
    )  # fmt: skip


class Rows:
    """What is in a stack's database. Looked at often while a test waits, so over one connection: to make one costs both sides
    more than any of these questions.
    """

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._connection: Any = None

    def query(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of one statement, in a transaction of its own. The server may have been restarted since the last one."""
        try:
            return self._query(statement, parameters)
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            self.close()
            return self._query(statement, parameters)

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _query(self, statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        if self._connection is None:
            self._connection = psycopg2.connect(self._url)
            self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return list(cursor.fetchall())

    def state(self, event_id: str) -> str:
        """Where an event stands."""
        return str(self.query("SELECT state FROM processing_state WHERE event_id = %s", event_id)[0][0])

    def standing(self, event_id: str) -> tuple[str, int, int]:
        """``(state, attempt, crashes)``."""
        [(state, attempt, crashes)] = self.query(
            "SELECT state, attempt, crashes FROM processing_state WHERE event_id = %s", event_id
        )
        return str(state), int(attempt), int(crashes)

    def effects(self, event_ids: Sequence[str]) -> int:
        """How many effects these events have together."""
        [(count,)] = self.query("SELECT count(*) FROM effect WHERE event_id = ANY (%s::uuid[])", list(event_ids))
        return int(count)

    def count(self, state: str, event_ids: Sequence[str]) -> int:
        """How many of these events are in a state."""
        [(count,)] = self.query(
            "SELECT count(*) FROM processing_state WHERE state = %s AND event_id = ANY (%s::uuid[])",
            state, list(event_ids),
        )  # fmt: skip
        return int(count)

    def history(self, event_id: str) -> list[tuple[str, float]]:
        """``(state, seconds since it was received)`` of each transition."""
        return [
            (str(state), float(seconds))
            for state, seconds in self.query(
                "SELECT u.state, extract(epoch FROM u.at - e.received_at) FROM event_update u"
                " JOIN event e ON e.id = u.event_id WHERE u.event_id = %s ORDER BY u.version",
                event_id,
            )
        ]

    def waiting(self, lock: int) -> int:
        """How many handlers wait for an advisory lock."""
        [(count,)] = self.query(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = %s", lock
        )
        return int(count)


@contextlib.contextmanager
def held_lock(stack: Stack, lock: int) -> Iterator[None]:
    """Keep handlers that ask for the advisory lock waiting."""
    connection = psycopg2.connect(stack.database_url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [lock])
            yield
    finally:
        connection.close()
