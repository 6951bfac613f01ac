"""What dropping events costs the load beside it, and whether their space comes back.

    python -m bench.retention [--events 500000] [--seconds 60]

Makes a history of a month in a database of its own, with a rule of a day for all of it. A sender records events one by one,
at a steady rate, which is what a POST waits for: first alone, then beside maintenance. Says how fast events go, p50
and p99 of recording in both, and how large the tables are before, after, and once as many events came in as went.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text

from bench.history import make_history
from holdfast.domain.event import NewEvent
from holdfast.domain.retention import RetentionRule
from holdfast.domain.state import State
from holdfast.local.servers import Postgres
from holdfast.maintenance.retain import retain
from holdfast.runtime.ids import uuid7
from holdfast.storage import events, retention
from holdfast.storage.audit import Actor
from holdfast.storage.database import Database
from holdfast.storage.migrate import upgrade

__all__ = ["COUNTED", "TABLES", "Figures", "main", "measure", "refill"]

TENANT = "acme"

TABLES = ("event", "processing_state", "event_update", "processed_event_log", "event_identity")

RATE = 100
"""Events a second that are sent meanwhile."""

COUNTED = "UPDATE statistics_cursor SET counted = CAST(pg_current_snapshot() AS text)"

_SETTLE = "UPDATE event_identity SET made_at = now() - interval '1 h' WHERE made_at > now() - interval '9 min'"

DEDUPE_SECONDS = 60 * 86_400.0
"""So long that every event that goes leaves its identity."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Milliseconds of recording one event, and what went."""

    alone_p50: float
    alone_p99: float
    beside_p50: float
    beside_p99: float
    dropped: int
    per_second: float


def main() -> None:
    """Measure, and say what came out."""
    parser = argparse.ArgumentParser(description="measure retention")
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Postgres(Path(folder) / "postgres", is_durable=True)
        server.start()
        try:
            _measure_on(server, options.events, options.seconds)
        finally:
            server.stop()


def _measure_on(server: Postgres, count: int, seconds: float) -> None:
    server.execute("CREATE DATABASE retention")
    upgrade(server.url("retention"))
    make_history(lambda sql: server.execute(sql, database="retention"), count, say=_say)
    server.execute(COUNTED, database="retention")
    database = Database(server.url("retention"), application_name="bench", pool_size=8)
    _say(f"before: {_sizes(database)}")
    figures = measure(database, seconds=seconds)
    _say(f"recording alone: p50 {figures.alone_p50:.2f} ms, p99 {figures.alone_p99:.2f} ms")
    _say(f"beside dropping: p50 {figures.beside_p50:.2f} ms, p99 {figures.beside_p99:.2f} ms")
    _say(f"{figures.dropped:,} events went, {figures.per_second:,.0f} a second")
    _say(f"after: {_sizes(database)}")
    server.execute("VACUUM ANALYZE", database="retention")
    refill(database, figures.dropped // 2)
    _say(f"after half as many came in as went: {_sizes(database)}")
    database.close()


def measure(database: Database, *, seconds: float) -> Figures:
    """Record alone for ``seconds``, then beside dropping for as long as that takes, ``seconds`` at least."""
    alone = _record_while(database, lambda began: time.monotonic() - began < seconds)
    actor = Actor(TENANT, "bench")
    database.call(retention.put_rule, actor, RetentionRule(State.PROCESSED, 1))
    done = threading.Event()
    dropped: list[int] = []
    began = time.monotonic()
    dropping = threading.Thread(target=_drop_all, args=(database, dropped, done), daemon=True)
    dropping.start()
    beside = _record_while(database, lambda started: not done.is_set() or time.monotonic() - started < seconds / 4)
    dropping.join()
    took = max(time.monotonic() - began, 0.001)
    return Figures(*_quantiles(alone), *_quantiles(beside), sum(dropped), sum(dropped) / took)


def _drop_all(database: Database, dropped: list[int], done: threading.Event) -> None:
    """As maintenance does, a turn a second; identities are taken for settled, so that nobody waits for those."""
    try:
        while True:
            began = time.monotonic()
            dropped.append(retain(database, default_days=0, dedupe_seconds=DEDUPE_SECONDS, limit=500))
            with database.transaction() as session:
                if session.scalar(text("SELECT count(*) FROM retention_walk WHERE ended_at IS NULL")) == 0:
                    return
                session.execute(
                    text(
                        "UPDATE event_identity SET made_at = now() - interval '1 h' WHERE made_at > now() - interval '9 min'"
                    )
                )
                session.execute(text("UPDATE retention_walk SET next_at = now()"))
            time.sleep(max(0.0, 1 - (time.monotonic() - began)))
    finally:
        done.set()


def _record_while(database: Database, goes_on: Callable[[float], bool]) -> list[float]:
    began, times, number = time.monotonic(), list[float](), 0
    while goes_on(began):
        number += 1
        time.sleep(max(0.0, began + number / RATE - time.monotonic()))
        started = time.perf_counter()
        database.call(events.record, [_event()], grace_seconds=3600)
        times.append(1000 * (time.perf_counter() - started))
    return times


def _event() -> NewEvent:
    identifier = uuid7()
    return NewEvent(
        id=identifier, tenant=TENANT, source="/bench", ce_id=str(identifier), type="bench", subject="s", audience="a",
        data_json='{"text": "' + "x" * 300 + '"}',
    )  # fmt: skip


def refill(database: Database, count: int) -> None:
    """Record so many events, 500 in a transaction."""
    for first in range(0, count, 500):
        database.call(events.record, [_event() for _ in range(min(500, count - first))], grace_seconds=3600)


def _sizes(database: Database) -> str:
    asked = text("SELECT pg_total_relation_size(CAST(:table AS regclass))")
    with database.transaction() as session:
        return ", ".join(f"{table} {session.scalar(asked, {'table': table}) / 2**20:,.0f} MiB" for table in TABLES)


def _quantiles(times: list[float]) -> tuple[float, float]:
    return statistics.median(times), statistics.quantiles(times, n=100)[98]


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
