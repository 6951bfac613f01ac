"""What dropping events costs producers, and whether their space comes back.

    python -m bench.retention [--events 500000] [--phase-seconds 20]

A whole stack with a history of a month. A producer POSTs events at a steady rate. Then a rule of a day comes, for the nine
tenths of the history that one tenant has, and maintenance drops them. In turns, the walk rests and goes on, so that a machine
that drifts does so under both. Says how fast events go, p50 and p99 of POST in both, and how large the tables are before,
after, and once half as many events came in as went.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.history import make_history
from holdfast.client import Client
from holdfast.domain.event import NewEvent
from holdfast.domain.retention import RetentionRule
from holdfast.domain.state import State
from holdfast.local.services import SERVICES
from holdfast.local.stack import Stack
from holdfast.runtime.ids import uuid7
from holdfast.storage import events, retention
from holdfast.storage.audit import Actor
from holdfast.storage.database import Database

__all__ = ["TENANT", "Figures", "await_vacuum", "lived_stack", "main", "measure", "refill", "run_for", "size"]

TENANT = "acme"
"""Of nine tenths of the history."""

TABLES = ("event", "processing_state", "event_update", "processed_event_log", "event_identity")

IDENTITIES = "event_identity"

_DEAD = f"""
SELECT count(*) FROM pg_stat_user_tables
WHERE relname IN ({", ".join(f"'{table}'" for table in TABLES)}) AND n_dead_tup > 2000 + n_live_tup / 20
"""  # noqa: S608
"""Tables of which more than a twentieth is dead; autovacuum comes after 2 % or so."""

MOST_VACUUM_SECONDS = 900.0

RATE = 50
"""POSTs a second."""

RESTS = 4
"""The walk goes on for so many times as long as it rests."""

MOST_SECONDS = 2 * 3600.0

COUNTED = "UPDATE statistics_cursor SET counted = CAST(pg_current_snapshot() AS text)"
"""Of a history that was not recorded: nobody has to count it before it goes."""

Say = Callable[[str], None]


@dataclass(slots=True)
class Figures:
    """What POSTs took while the walk rested and while it went on, in milliseconds, and what went."""

    resting_ms: list[float] = field(default_factory=list)
    going_ms: list[float] = field(default_factory=list)
    dropped: int = 0
    going: list[float] = field(default_factory=list)
    """Events a second that went in each phase."""

    @property
    def p99_ratio(self) -> float:
        """How many times as long a POST takes while events are dropped."""
        return _quantiles(self.going_ms)[1] / _quantiles(self.resting_ms)[1]

    def __str__(self) -> str:
        lines = [
            f"POST while the walk {name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms of {len(took):,}"
            for name, took in (("rests", self.resting_ms), ("goes on", self.going_ms))
            for p50, p99 in [_quantiles(took)]
        ]
        lines.append(f"p99 is {self.p99_ratio:.2f} times as long")
        busy = [each for each in self.going if each >= 1]  # in the first phases identities settle, and nothing goes
        lines.append(f"{self.dropped:,} events went, {statistics.median(busy):,.0f} a second while the walk goes on")
        return "\n".join(lines)


def main() -> int:
    """Measure, and say what came out."""
    parser = argparse.ArgumentParser(prog="python -m bench.retention", description=__doc__)
    parser.add_argument("--events", type=int, default=500_000, help="size of the history (500000)")
    parser.add_argument("--phase-seconds", type=float, default=20, help="how long the walk goes on at a time (20)")
    options = parser.parse_args()
    with lived_stack(options.events, say=_say) as (stack, database):
        _say(f"before: {_sizes(stack)}")
        figures = measure(stack, database, phase_seconds=options.phase_seconds, say=_say)
        _say(str(figures))
        await_vacuum(stack)
        _say(f"after: {_sizes(stack)}")
        refill(database, half := figures.dropped // 2)
        _say(f"after {half:,} events came in: {_sizes(stack)}")
    return 0


@contextmanager
def lived_stack(events_: int, *, say: Say) -> Iterator[tuple[Stack, Database]]:
    """A stack with a history, and a connection to its database."""
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    settings, services = {"HOLDFAST_HANDLERS": "handlers:handlers"}, [each.name for each in SERVICES]
    # While the history is made there are no indexes, and what services look for would be read from end to end.
    stack = Stack(folder, settings=settings, python_path=str(Path(__file__).parent), held=services, say=say)
    try:
        stack.start()
        make_history(lambda sql: stack.postgres.execute(sql, database="holdfast"), events_, say=say)
        stack.postgres.execute(COUNTED, database="holdfast")
        for each in services:
            stack.resume(each)
        database = Database(stack.database_url, application_name="bench", pool_size=2)
        yield stack, database
        database.close()
    finally:
        stack.stop()
        shutil.rmtree(folder, ignore_errors=True)


def measure(stack: Stack, database: Database, *, phase_seconds: float, say: Say) -> Figures:
    """Send, and let events go until none is left that the rule is for.

    Raises:
        RuntimeError: that took ``MOST_SECONDS``.
    """
    figures, wanted = Figures(), _old_enough(stack)
    began = time.monotonic()
    database.call(retention.put_rule, Actor(TENANT, "bench"), RetentionRule(State.PROCESSED, 1))
    with Client(stack.ingest_url, stack.api_key) as client:
        run_for(phase_seconds, client)  # files are cached, and identities of the first pages settle
        while figures.dropped < wanted:
            if time.monotonic() - began > MOST_SECONDS:
                raise RuntimeError(f"{figures.dropped:,} of {wanted:,} events went in {MOST_SECONDS:,.0f} s")
            rest_seconds = phase_seconds / RESTS
            _postpone(stack, f"now() + interval '{rest_seconds} s'")
            figures.resting_ms += run_for(rest_seconds, client)
            _postpone(stack, "now()")
            before = _dropped(stack)
            figures.going_ms += run_for(phase_seconds, client)
            figures.dropped = _dropped(stack)
            figures.going.append((figures.dropped - before) / phase_seconds)
            say(f"{time.monotonic() - began:,.0f} s: {figures.dropped:,} of {wanted:,} events went")
    return figures


def run_for(seconds: float, client: Client) -> list[float]:
    """POST at the rate; how long each took, in milliseconds."""
    began, took_ms = time.monotonic(), list[float]()
    while time.monotonic() - began < seconds:
        time.sleep(max(0.0, began + len(took_ms) / RATE - time.monotonic()))
        asked = time.perf_counter()
        client.send({"type": "bench.noop", "subject": "s", "data": {"text": "x" * 300}})
        took_ms.append(1000 * (time.perf_counter() - asked))
    return took_ms


def refill(database: Database, count: int) -> None:
    """Record so many events, 500 in a transaction."""
    for first in range(0, count, 500):
        database.call(events.record, [_event() for _ in range(min(500, count - first))], grace_seconds=3600)


def await_vacuum(stack: Stack) -> None:
    """Wait until autovacuum has been where events went: it comes by itself, some minutes later.

    Raises:
        RuntimeError: it did not come in ``MOST_VACUUM_SECONDS``.
    """
    began = time.monotonic()
    while dead := int(stack.postgres.execute(_DEAD, database="holdfast")):
        if time.monotonic() - began > MOST_VACUUM_SECONDS:
            raise RuntimeError(f"autovacuum has left dead rows in {dead} tables for {MOST_VACUUM_SECONDS:,.0f} s")
        time.sleep(1)


def size(stack: Stack, database: str = "holdfast") -> int:
    """Bytes of all tables that the history fills, with their indexes; without the identities of what went, which stay."""
    return sum(_size(stack, table, database) for table in TABLES if table != IDENTITIES)


def _event() -> NewEvent:
    identifier = uuid7()
    return NewEvent(
        id=identifier, tenant=TENANT, source="/bench", ce_id=str(identifier), type="bench", subject="s", audience="a",
        data_json='{"text": "' + "x" * 300 + '"}',
    )  # fmt: skip


def _postpone(stack: Stack, until: str) -> None:
    """When the walk goes on; a page under way says otherwise at its end, so that it is told again a moment later."""
    for _ in range(2):
        stack.postgres.execute(f"UPDATE retention_walk SET next_at = {until}", database="holdfast")  # noqa: S608
        time.sleep(0.5)


def _dropped(stack: Stack) -> int:
    return int(stack.postgres.execute("SELECT coalesce(sum(dropped), 0) FROM retention_walk", database="holdfast"))


def _old_enough(stack: Stack) -> int:
    """Events that the rule is for; in an hour it is for a few more."""
    asked = f"""
    SELECT count(*) FROM event e JOIN processing_state s ON s.event_id = e.id
    WHERE e.tenant = '{TENANT}' AND s.state = '{State.PROCESSED}' AND s.finished_at < now() - interval '1 day 1 hour'
    """  # noqa: S608
    return int(stack.postgres.execute(asked, database="holdfast"))


def _size(stack: Stack, table: str, database: str = "holdfast") -> int:
    return int(stack.postgres.execute(f"SELECT pg_total_relation_size('{table}')", database=database))


def _sizes(stack: Stack) -> str:
    each = ", ".join(f"{table} {_size(stack, table) >> 20:,}" for table in TABLES)
    return f"{size(stack) >> 20:,} MiB ({each})"


def _quantiles(took_ms: Sequence[float]) -> tuple[float, float]:
    return statistics.median(took_ms), statistics.quantiles(took_ms, n=100)[98]


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
