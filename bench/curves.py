"""``python -m bench.curves``: records, claims and lists beside histories of several sizes, and beside blocked events.

Each history is a database of one server. Rounds are interleaved, so a machine that drifts does so under all of them; what
counts is the ratio to the empty database. One connection and one thread, by the project's own storage functions: it is the
statements that are compared. Half a minute a round and database, and a minute or two to make a million events.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

from bench.history import block, make_history
from bench.rounds import Case, Measured, interleave, ratio
from bench.server import fresh_database
from holdfast.domain.event import NewEvent, canonical_json
from holdfast.domain.state import State
from holdfast.domain.transitions import Completion, settle
from holdfast.local.servers import Postgres
from holdfast.runtime.ids import uuid7
from holdfast.storage import claims, events, lifecycle
from holdfast.storage.database import Database
from holdfast.storage.filters import EventFilter
from holdfast.storage.listing import list_events

__all__ = ["KINDS", "LISTS", "curve", "lists", "log_written"]

LIST = 8
"""Events a transaction."""

LISTS: Mapping[str, EventFilter] = {
    "everything": EventFilter(),
    "a type that half of all events have": EventFilter(type="com.example.type-0"),
    "a subject that a few events have": EventFilter(subject="subject-77"),
    "a type that no event has": EventFilter(type="never"),
    "an id": EventFilter(ce_id="never"),
    "dead letters": EventFilter(state=State.DEAD),
    "dead letters of one cause": EventFilter(state=State.DEAD, error_type="KeyError"),
    "a type that never comes from this source": EventFilter(source="/source-19", type="com.example.type-0"),
}


def record(database: Database, seconds: float) -> float:
    """Events a second that are recorded."""
    return _rate(seconds, lambda: len(_record(database)))


def by_doorbell(database: Database, seconds: float) -> float:
    """Events a second that are claimed by their doorbells and settled; recording them is not counted."""
    made = _stock(database, seconds)

    def work() -> int:
        return _settle(
            database, partial(claims.claim_events, doorbells=[made.pop() for _ in range(min(LIST, len(made)))])
        )

    return _rate(seconds, work)


def by_search(database: Database, seconds: float) -> float:
    """The same, found by the search for due events."""
    _stock(database, seconds)
    return _rate(seconds, lambda: _settle(database, partial(claims.claim_due, limit=LIST)))


_LOG_POSITION = "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"

KINDS: Mapping[str, Callable[[Database, float], float]] = {
    "record": record, "claim and settle": by_doorbell, "search and settle": by_search,
}  # fmt: skip


def curve(databases: Mapping[str, Database], *, rounds: int, seconds: float, say: Callable[[str], object]) -> str:
    """What each database does of each kind, and how much of what the first one does, as Markdown."""
    cases = [
        Case(f"{kind}, {name}", f"{kind}, {name}", partial(measure, database, seconds))
        for kind, measure in KINDS.items()
        for name, database in databases.items()
    ]
    measured = interleave(cases, rounds=rounds, say=say)
    first = next(iter(databases))
    rows = [_row(kind, name, measured, first) for kind in KINDS for name in databases]
    return "\n".join(["| what | beside | events/s | of an empty one |", "|---|---|---|---|", *rows, ""])


def lists(database: Database, *, times: int = 5) -> str:
    """How long the first page and one in the middle take, in milliseconds, as Markdown."""
    far_back = UUID(int=int((time.time() - 15 * 24 * 3600) * 1000) << 80)
    rows = [
        f"| {name} | {_milliseconds(database, wanted, None, times):.1f} |"
        f" {_milliseconds(database, wanted, far_back, times):.1f} |"
        for name, wanted in LISTS.items()
    ]
    return "\n".join(["| list of 50 | first page, ms | half way back, ms |", "|---|---|---|", *rows, ""])


def log_written(server: Postgres, databases: Mapping[str, Database], *, count: int = 2_000) -> str:
    """Bytes of write-ahead log that a recorded event takes beside each history, right after a checkpoint, as Markdown.

    Then a page is logged whole when it is first changed (PostgreSQL's ``full_page_writes``): the larger an index, the fewer
    events share a page of it.
    """
    rows = []
    for name, database in databases.items():
        server.execute("CHECKPOINT")
        before = int(server.execute(_LOG_POSITION))
        for _ in range(0, count, LIST):
            _record(database)
        rows.append(f"| {name} | {(int(server.execute(_LOG_POSITION)) - before) / count:,.0f} |")
    return "\n".join(["| beside | log, bytes a recorded event |", "|---|---|", *rows, ""])


def _row(kind: str, name: str, measured: Mapping[str, Measured], first: str) -> str:
    mine, empty = measured[f"{kind}, {name}"], measured[f"{kind}, {first}"]
    return f"| {kind} | {name} | {mine.median:,.0f} | {ratio(mine, empty):.2f} |"


def _milliseconds(database: Database, wanted: EventFilter, before_id: UUID | None, times: int) -> float:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        database.call(list_events, wanted, tenant="acme", limit=50, before_id=before_id)
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def _rate(seconds: float, work: Callable[[], int]) -> float:
    """Events a second; ends early where ``work`` finds nothing more to do."""
    began, done = time.monotonic(), 0
    while (elapsed := time.monotonic() - began) < seconds:
        count = work()
        done += count
        if count == 0:
            break
    return done / elapsed


def _settle(database: Database, claim: Callable[..., Sequence[tuple[object, object]]]) -> int:
    leased = database.call(claim, owner="bench-1/worker-1", lease_seconds=30)
    done = [settle(lease.event.id, lease.token, Completion("bench", None, 0)) for lease, _ in leased]  # type: ignore[attr-defined]
    return len(database.call(lifecycle.apply, done)) if done else 0


def _stock(database: Database, seconds: float) -> list[tuple[UUID, int]]:
    """Due events for ``seconds``, more than can be worked off."""
    count = int(2_000 * seconds)
    return [each for _ in range(0, count, 100) for each in _record(database, 100)]


def _record(database: Database, count: int = LIST) -> list[tuple[UUID, int]]:
    recorded = database.call(events.record, [_event() for _ in range(count)], grace_seconds=3600)
    return [(each.update.event_id, each.update.version) for each in recorded]


def _event() -> NewEvent:
    identifier = uuid4()
    return NewEvent(
        id=uuid7(), tenant="acme", source="/bench", ce_id=str(identifier), type="com.example.bench",
        subject=f"subject-{identifier.int % 100_000}", audience=f"user-{identifier.int % 200}",
        data_json=canonical_json({"text": "x" * 290}),
    )  # fmt: skip


def _databases(server: Postgres, sizes: Sequence[int], blocked: int) -> dict[str, Database]:
    """An empty one, those with histories, and one with nothing but blocked events."""
    made: dict[str, Database] = {}
    for name, events_, blocked_ in [
        ("no events", 0, 0),
        *((f"{size:,} events", size, 0) for size in sizes),
        *([(f"{blocked:,} blocked events", 0, blocked)] if blocked else []),
    ]:
        database = fresh_database(server)
        if events_:
            make_history(partial(server.execute, database=database), events_, say=_say)
        if blocked_:
            block(partial(server.execute, database=database), blocked_)
            server.execute("VACUUM ANALYZE", database=database)
        made[name] = Database(server.url(database), application_name="bench", pool_size=1)
    return made


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.curves", description=__doc__)
    parser.add_argument("--events", type=int, nargs="*", default=[100_000, 1_000_000], help="sizes (100000 1000000)")
    parser.add_argument("--blocked", type=int, default=50_000, help="ordered events that wait for their turn (50000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; medians count (3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each measurement (3)")
    return parser.parse_args()


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def main() -> int:
    """Measure on a server of its own, and print."""
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="holdfast-curves-"))
    server = Postgres(folder)
    try:
        server.start()
        databases = _databases(server, options.events, options.blocked)
        sys.stdout.write(curve(databases, rounds=options.rounds, seconds=options.seconds, say=_say) + "\n")
        sys.stdout.write(log_written(server, databases) + "\n")
        sys.stdout.write(lists(databases[f"{max(options.events):,} events"]) if options.events else "")
        for database in databases.values():
            database.close()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
