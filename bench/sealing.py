"""``python -m bench.sealing``: what sealing the data of events costs one, in CPU time of PostgreSQL and of Python.

Events are recorded, claimed, read and settled by the project's own functions, in rounds that alternate between a connection
that seals and one that does not.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from sqlalchemy import text

from bench.server import fresh_database
from bench.usage import cpu_seconds
from holdfast.domain.encryption_keys import key_text
from holdfast.domain.event import NewEvent
from holdfast.domain.transitions import Completion, settle
from holdfast.local.servers import Postgres
from holdfast.runtime.ids import uuid7
from holdfast.storage import claims, events, lifecycle
from holdfast.storage.database import Database
from holdfast.storage.sealing import Sealing, open_sealing

__all__ = ["Side"]


class Side:
    """One of the two: a connection, and the microseconds of CPU an event of each round, of PostgreSQL and of Python."""

    def __init__(self, url: str, sealing: Sealing | None) -> None:
        self.database = Database(url, application_name="bench", pool_size=1, sealing=sealing)
        self.recorded: list[tuple[float, float]] = []
        self.processed: list[tuple[float, float]] = []
        # A tenant's first event opens another connection for a moment, and the pool may keep that one.
        self.database.call(events.record, [_event('"first"')], grace_seconds=3600.0)
        self._pid = self.database.call(lambda session: int(session.scalars(text("SELECT pg_backend_pid()")).one()))

    def run(self, *, count: int, together: int, size: int) -> None:
        """One round."""
        data = '{"text": "' + "x" * (size - 12) + '"}'
        made = [_event(data) for _ in range(count)]
        lists = [made[start : start + together] for start in range(0, count, together)]
        began = self._spent()
        for each in lists:
            self.database.call(events.record, each, grace_seconds=3600.0)
        middle = self._spent()
        for each in lists:
            bells = [(event.id, 1) for event in each]
            leases = self.database.call(claims.claim_events, bells, owner="bench", lease_seconds=60.0)
            if any(len(lease.event.data["text"]) != size - 12 for lease, _ in leases):
                raise RuntimeError("data came back otherwise")
            done = [settle(lease.event.id, lease.token, Completion("bench", None, 1)) for lease, _ in leases]
            self.database.call(lifecycle.apply, done)
        ended = self._spent()
        self.recorded.append(((middle[0] - began[0]) / count * 1e6, (middle[1] - began[1]) / count * 1e6))
        self.processed.append(((ended[0] - middle[0]) / count * 1e6, (ended[1] - middle[1]) / count * 1e6))

    def _spent(self) -> tuple[float, float]:
        return cpu_seconds([self._pid]), time.process_time()


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.sealing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--events", type=int, default=1000, help="in each round of each side")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    server = Postgres(folder / "postgres", is_durable=False)
    server.start()
    try:
        url = server.url(fresh_database(server))
        for size, together in ((300, 50), (16_384, 50), (300, 1)):
            sides = {"plain": Side(url, None), "sealed": Side(url, open_sealing(key_text(os.urandom(32))))}
            for side in sides.values():
                side.run(count=options.events, together=together, size=size)  # plans
                side.recorded.clear()
                side.processed.clear()
            for _ in range(options.rounds):
                for side in sides.values():
                    side.run(count=options.events, together=together, size=size)
            for name, side in sides.items():
                shown = " ".join(f"{_median(each):>18}" for each in (side.recorded, side.processed))
                sys.stdout.write(f"{size:>6} B, {together:>2} together, {name:6} {shown}\n")
                side.database.close()
            with Database(url, application_name="bench").transaction() as session:
                session.execute(text("TRUNCATE event, data_key CASCADE"))
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _median(rounds: list[tuple[float, float]]) -> str:
    """PostgreSQL + Python."""
    return " + ".join(f"{statistics.median(each):.0f}" for each in zip(*rounds, strict=True)) + " µs"


def _event(data: str) -> NewEvent:
    return NewEvent(
        id=uuid7(), tenant="acme", source="/bench", ce_id=uuid4().hex, type="bench.sealed",
        datacontenttype="application/json", data_json=data,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
