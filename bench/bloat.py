"""``python -m bench.bloat --minutes 30``: dead rows and sizes, minute by minute, while events come in and are processed.

Beside a history, events are recorded, claimed (by the search, which meets dead index entries first) and settled at a
bounded rate by the project's own functions. A line a minute says how large the hot tables are, how many dead rows they
have, how often autovacuum came, and how long a claim took. ``--plain`` takes the tables' own autovacuum settings away, for
comparison.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from bench.history import make_history
from bench.server import fresh_database
from holdfast.domain.event import NewEvent, canonical_json
from holdfast.domain.transitions import Completion, settle
from holdfast.local.servers import Postgres
from holdfast.runtime.ids import uuid7
from holdfast.storage import claims, events, lifecycle
from holdfast.storage.database import Database

__all__ = ["HOT_TABLES", "plain", "work"]

HOT_TABLES = ("processing_state", "event_update", "event", "processed_event_log")

LIST = 10
"""Events a transaction."""

HEADER = (
    "| minute | events/s | claim p50, p95 ms | state: dead rows, table, indexes MiB | updates: dead rows, table, indexes MiB"
    " | autovacuums of state, updates, event, log |\n|---|---|---|---|---|---|\n"
)

_STANDING = """
SELECT n_dead_tup, pg_table_size(relid) / 1048576.0, pg_indexes_size(relid) / 1048576.0, autovacuum_count
FROM pg_stat_user_tables WHERE relname = '{table}'
"""

_OPTIONS = "SELECT array_to_string(reloptions, ',') FROM pg_class WHERE oid = '{table}'::regclass"


def work(database: Database, number: int) -> float:
    """Take ``LIST`` events all the way; returns the milliseconds that their claim took."""
    made = [_event(number + each) for each in range(LIST)]
    database.call(events.record, made, grace_seconds=3600)
    began = time.perf_counter()
    leased = database.call(claims.claim_due, owner="bench-1/worker-1", lease_seconds=30, limit=LIST)
    took = (time.perf_counter() - began) * 1000
    done = [settle(lease.event.id, lease.token, Completion("book-order", {"ok": True}, 7)) for lease, _ in leased]
    database.call(lifecycle.apply, done)
    return took


def plain(server: Postgres, database: str) -> None:
    """Take away what the tables say about autovacuum."""
    for table in (*HOT_TABLES, "event_identity"):
        options = server.execute(_OPTIONS.format(table=table), database=database)
        names = [each.partition("=")[0] for each in options.split(",") if "autovacuum" in each]
        if names:
            server.execute(f"ALTER TABLE {table} RESET ({', '.join(names)})", database=database)


def _minutes(database: Database, *, minutes: int, rate: float) -> Iterator[tuple[int, float, list[float]]]:
    """Minute, events a second and the claims' milliseconds, as each minute ends."""
    count = 0
    for minute in range(1, minutes + 1):
        began, took = time.monotonic(), list[float]()
        while (elapsed := time.monotonic() - began) < 60:
            if len(took) * LIST > rate * elapsed:
                time.sleep(LIST / rate / 4)
                continue
            took.append(work(database, count))
            count += LIST
        yield minute, len(took) * LIST / elapsed, took


def _standing(server: Postgres, name: str, table: str) -> tuple[str, str]:
    """Dead rows with the sizes, and how often autovacuum came."""
    dead, heap, indexes, vacuums = server.execute(_STANDING.format(table=table), database=name).split("\t")
    return f"{int(dead):,}, {float(heap):.0f}, {float(indexes):.0f}", vacuums


def _line(server: Postgres, name: str, minute: int, rate: float, took: list[float]) -> str:
    standing = {table: _standing(server, name, table) for table in HOT_TABLES}
    state, update = (standing[table][0] for table in HOT_TABLES[:2])
    vacuums = ", ".join(count for _, count in standing.values())
    p50, p95 = statistics.median(took), statistics.quantiles(took, n=20)[-1]
    return f"| {minute} | {rate:,.0f} | {p50:.1f}, {p95:.1f} | {state} | {update} | {vacuums} |\n"


def _event(number: int) -> NewEvent:
    return NewEvent(
        id=uuid7(), tenant="acme", source="/bench", ce_id=str(uuid4()), type="com.example.bench",
        subject=f"subject-{number % 100_000}", audience=f"user-{number % 200}",
        data_json=canonical_json({"text": "x" * 290}),
    )  # fmt: skip


def main() -> int:
    """Watch on a server of its own, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.bloat", description=__doc__)
    parser.add_argument("--minutes", type=int, default=30, help="how long (30)")
    parser.add_argument("--events", type=int, default=300_000, help="events that are there before (300000)")
    parser.add_argument("--rate", type=float, default=200.0, help="events a second, at most (200)")
    parser.add_argument(
        "--plain", action="store_true", help="with the server's defaults instead of the tables' settings"
    )
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bloat-"))
    server = Postgres(folder)
    try:
        server.start()
        name = fresh_database(server)
        if options.plain:
            plain(server, name)
        make_history(lambda sql: server.execute(sql, database=name), options.events)
        database = Database(server.url(name), application_name="bench", pool_size=1)
        sys.stdout.write(HEADER)
        for minute, rate, took in _minutes(database, minutes=options.minutes, rate=options.rate):
            sys.stdout.write(_line(server, name, minute, rate, took))
            sys.stdout.flush()
        database.close()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
