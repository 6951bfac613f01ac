"""``python -m bench.counting``: what the counters behind charts cost an event, in CPU time of PostgreSQL and of Python.

Beside a history, events are recorded, claimed and settled in lists by the project's own functions, and counted after every
page of them, each over a connection of its own: so the server's process of each says what it took.
"""

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from sqlalchemy import text

from bench.history import make_history
from bench.server import fresh_database
from bench.usage import cpu_seconds
from holdfast.domain.event import NewEvent, canonical_json
from holdfast.domain.transitions import AttemptError, Completion, Transition, fail, settle
from holdfast.local.servers import Postgres
from holdfast.runtime.ids import uuid7
from holdfast.storage import claims, counting, events, lifecycle
from holdfast.storage.database import Database

__all__ = ["Cost", "measure"]

HANDLERS = 10

FAIL_EVERY = 50
"""One attempt in so many fails, and is tried again at once."""


@dataclass(slots=True)
class Cost:
    """Seconds of CPU so far: of PostgreSQL and of Python."""

    postgres: float = 0.0
    python: float = 0.0


class _Connection:
    """A connection, and what both of its ends have used within ``with`` blocks."""

    def __init__(self, url: str) -> None:
        self.database = Database(url, application_name="bench", pool_size=1)
        self.cost = Cost()
        self._pid = self.database.call(lambda session: int(session.scalars(text("SELECT pg_backend_pid()")).one()))
        self._began = Cost()

    def __enter__(self) -> Database:
        self._began = Cost(cpu_seconds([self._pid]), time.process_time())
        return self.database

    def __exit__(self, *_: object) -> None:
        self.cost.postgres += cpu_seconds([self._pid]) - self._began.postgres
        self.cost.python += time.process_time() - self._began.python


def measure(url: str, *, count: int, together: int, page: int) -> tuple[Cost, Cost]:
    """Take ``count`` events all the way in lists of ``together``; what that cost, and what counting them did.

    Raises:
        RuntimeError: not every event was counted, so the figures are worth nothing.
    """
    working, counted = _Connection(url), _Connection(url)
    with counted as database:
        while database.call(counting.count_page, limit=10_000):
            pass
    before, counted.cost = _accepted(working.database), Cost()
    for first in range(0, count, page):
        with working as database:
            for number in range(first, first + page, together):
                _work(database, number, together)
        with counted as database:
            database.call(counting.count_page, limit=100_000)
    found = _accepted(working.database) - before
    working.database.close()
    counted.database.close()
    if found != count:
        raise RuntimeError(f"{found} of {count} events were counted")
    return working.cost, counted.cost


def _work(database: Database, number: int, together: int) -> None:
    made = [_event(number + each) for each in range(together)]
    database.call(events.record, made, grace_seconds=3600)
    left = [(event.id, 1) for event in made]
    while left:
        leased = database.call(claims.claim_events, left, owner="bench-1/worker-1", lease_seconds=30)
        moves = [_outcome(lease.event.id, lease.token, lease.attempt) for lease, _ in leased]
        moved = database.call(lifecycle.apply, moves)
        left = [(update.event_id, update.version) for update in moved if update.state == "failed"]


def _outcome(event_id: object, token: object, attempt: int) -> Transition:
    number = int(str(event_id)[-8:], 16)
    handler = f"handler-{number % HANDLERS}"
    if attempt == 1 and number % FAIL_EVERY == 0:
        error = AttemptError("KeyError", "k", handler=handler, duration_ms=number % 300)
        return fail(event_id, token, error, delay_seconds=0)  # type: ignore[arg-type]
    return settle(event_id, token, Completion(handler, {"ok": True}, number % 300))  # type: ignore[arg-type]


def _event(number: int) -> NewEvent:
    return NewEvent(
        id=uuid7(), tenant=f"tenant-{number % 3}", source="/bench", ce_id=str(uuid4()), type="com.example.bench",
        subject=f"subject-{number % 100_000}", audience=f"user-{number % 200}",
        data_json=canonical_json({"text": "x" * 290}),
    )  # fmt: skip


def _accepted(database: Database) -> int:
    sums = text("SELECT coalesce(sum(accepted), 0) FROM event_statistics WHERE step_seconds = 86400")
    return database.call(lambda session: int(session.scalars(sums).one()))


def main() -> int:
    """Measure on a server of its own, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.counting", description=__doc__)
    parser.add_argument("--events", type=int, default=30_000, help="how many (30000)")
    parser.add_argument("--history", type=int, default=100_000, help="events that are there before (100000)")
    parser.add_argument("--together", type=int, default=50, help="events recorded, claimed and settled at a time (50)")
    parser.add_argument("--page", type=int, default=5_000, help="events between two turns of counting (5000)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="holdfast-counting-"))
    server = Postgres(folder)
    try:
        server.start()
        name = fresh_database(server)
        make_history(lambda sql: server.execute(sql, database=name), options.history)
        work, counted = measure(
            server.url(name), count=options.events, together=options.together, page=options.page
        )  # fmt: skip
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    for what, cost in (("record, claim, settle", work), ("count", counted)):
        postgres, python = (1e6 * each / options.events for each in (cost.postgres, cost.python))
        sys.stdout.write(f"{what}: {postgres:.1f} µs of PostgreSQL, {python:.1f} µs of Python an event\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
