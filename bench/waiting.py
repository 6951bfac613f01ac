"""``python -m bench.waiting``: what a million events that wait cost those that do not.

Two databases on one server: in one nothing else waits, in the other events wait for their time, in the line of a limit, in
that of a pause, and behind the first event of their subject. In rounds that alternate between the two, events are recorded,
found and claimed by a search as a poll does, claimed by their doorbells, and settled.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from sqlalchemy import text

from bench.server import fresh_database
from holdfast.domain.event import NewEvent
from holdfast.domain.transitions import Completion, settle
from holdfast.local.servers import Postgres
from holdfast.runtime.ids import uuid7
from holdfast.storage import aside, candidates, claims, dispatch, events, lifecycle
from holdfast.storage.database import Database

__all__ = ["Side"]

KINDS = ("scheduled", "limited", "paused", "behind")

_EVENTS = """
INSERT INTO event (id, tenant, source, ce_id, type, subject, data_bytes, is_json)
SELECT CAST(lpad(to_hex(1764000000000 + n), 12, '0') || '7' || substr(md5(:kind || n), 1, 3) || '8'
            || substr(md5(:kind || n), 4, 15) AS uuid),
       'acme', '/waiting/' || :kind, CAST(n AS text), 'bench.' || :kind,
       CASE WHEN :kind = 'behind' THEN 'subject-' || n % 50 END, '{}', true
FROM generate_series(1, :count) AS n
"""

_STATES = """
INSERT INTO processing_state (event_id, state, version, available_at, next_dispatch_at, tenant_name, waiting_since,
                              unserved_type, waits_in, lane_key, lane, lane_at)
SELECT id, 'queued', 1, now() + interval '1 hour', now() + interval '1 hour', tenant,
       CASE WHEN :kind <> 'scheduled' THEN now() - interval '1 minute' END,
       CASE WHEN :kind IN ('limited', 'paused') THEN '' END,
       CASE :kind WHEN 'limited' THEN 'limit:bench:' || CAST(ce_id AS int) % 1000
                  WHEN 'paused' THEN 'pause:00000000-0000-7000-8000-000000000000' END,
       CASE WHEN :kind = 'behind' THEN CAST(md5(subject) AS uuid) END,
       CASE WHEN :kind = 'behind' THEN hashtextextended(subject, 0) END,
       CASE WHEN :kind = 'behind' THEN now() - interval '1 day' + make_interval(secs => CAST(ce_id AS int)) END
FROM event WHERE source = '/waiting/' || :kind
"""


class Side:
    """One of the two databases: a connection, and what a list took in each round, in microseconds."""

    def __init__(self, url: str) -> None:
        self.database = Database(url, application_name="bench", pool_size=1)
        self.rounds: list[dict[str, float]] = []

    def fill(self, count: int) -> None:
        """Let so many events wait, a quarter of each kind."""
        with self.database.transaction() as session:
            for kind in KINDS:
                for statement in (_EVENTS, _STATES):
                    session.execute(text(statement), {"kind": kind, "count": count // len(KINDS)})

    def analyze(self) -> None:
        """As autovacuum does after a while."""
        with self.database.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))

    def run(self, *, count: int, together: int) -> None:
        """One round: half of the events are found by searches, the others by doorbells; and what a poll does beside that."""
        spent: dict[str, float] = {}
        new = [_event() for _ in range(count)]
        lists = [new[start : start + together] for start in range(0, count, together)]
        for number, each in enumerate(lists):
            recorded = self.database.call(events.record, each, grace_seconds=3600.0)
            way = "search" if number % 2 else "doorbell"
            began = time.perf_counter()
            if number % 2:
                leases = self.database.call(
                    claims.claim_due, owner="bench", lease_seconds=60.0, limit=together,
                )  # fmt: skip
            else:
                leases = self.database.call(
                    claims.claim_events, [one.doorbell for one in recorded], owner="bench", lease_seconds=60.0
                )
            self._add(spent, way, began)
            if len(leases) != len(each):
                raise RuntimeError(f"{len(leases)} of {len(each)} were claimed")
            done = [settle(lease.event.id, lease.token, Completion("bench", None, 1)) for lease, _ in leases]
            self.database.call(lifecycle.apply, done)
            began = time.perf_counter()
            self.database.call(dispatch.redispatch_due, limit=500)
            self.database.call(candidates.kinds_of, [""])
            self.database.call(aside.lines, limit=256)
            self._add(spent, "poll", began)
        half = max(1, len(lists) // 2)
        self.rounds.append({name: each / (half if name != "poll" else len(lists)) for name, each in spent.items()})

    @staticmethod
    def _add(spent: dict[str, float], name: str, began: float) -> None:
        spent[name] = spent.get(name, 0.0) + (time.perf_counter() - began) * 1e6


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.waiting", description=__doc__)
    parser.add_argument("--waiting", type=int, default=1_000_000, help="events that wait")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--events", type=int, default=2000, help="in each round of each side")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    server = Postgres(folder / "postgres", is_durable=False)
    server.start()
    try:
        sides = {"alone": Side(server.url(fresh_database(server))), "beside": Side(server.url(fresh_database(server)))}
        began = time.monotonic()
        sides["beside"].fill(options.waiting)
        sys.stdout.write(f"{options.waiting:,} events wait after {time.monotonic() - began:.0f} s\n")
        for side in sides.values():
            side.run(count=options.events, together=50)  # plans
            side.analyze()
            side.rounds.clear()
        for _ in range(options.rounds):
            for side in sides.values():
                side.run(count=options.events, together=50)
        _report(sides["alone"], sides["beside"])
        for side in sides.values():
            side.database.close()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _report(alone: Side, beside: Side) -> None:
    """Medians of a list of 50, and the median of the ratios within a round."""
    for name in ("doorbell", "search", "poll"):
        own = [each[name] for each in alone.rounds]
        other = [each[name] for each in beside.rounds]
        ratio = statistics.median(b / a for a, b in zip(own, other, strict=True))
        line = (
            f"{statistics.median(own):8.0f} µs alone, {statistics.median(other):8.0f} µs beside them, {ratio:.2f} times"
        )
        sys.stdout.write(f"{name:9} {line}\n")


def _event() -> NewEvent:
    return NewEvent(
        id=uuid7(), tenant="other", source="/bench", ce_id=uuid4().hex, type="bench.plain",
        datacontenttype="application/json", data_json="{}",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
