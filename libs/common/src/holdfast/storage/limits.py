"""Limits of handlers, counted in PostgreSQL under a lock for each line: exact over all processes, whatever is killed.

What runs is counted where it is: events that are ``processing`` and hold the limit. So nothing has to be given back, and no
count can be wrong after a crash. Starts of a rate are rows with the time until which each is taken.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy.orm import Session

from holdfast.storage.statements import statement

__all__ = ["Starts", "forget_starts", "lock", "running", "starts", "take_starts"]

_LOCK = statement("""
-- Parameters: lines. Sorted, so that two claims wait for each other instead of deadlocking; held until the commit.
SELECT pg_advisory_xact_lock(h) FROM (
    SELECT DISTINCT hashtextextended(line, 12) AS h FROM unnest(CAST(:lines AS text[])) AS line ORDER BY h OFFSET 0
) sorted
""")

_RUNNING = statement("""
-- Parameters: lines. A statement after the lock, whose snapshot has what the claim before has committed.
SELECT s.held_limit AS line, count(*) AS running FROM processing_state s
WHERE s.held_limit = ANY (:lines) AND s.state = {PROCESSING}
GROUP BY s.held_limit
""")

_STARTS = statement("""
-- Parameters: lines.
SELECT line, count(r.slot) AS taken,
       CAST(extract(epoch FROM min(r.free_at) - statement_timestamp()) AS float8) AS seconds
FROM unnest(CAST(:lines AS text[])) AS line
LEFT JOIN rate_start r ON r.key = line AND r.free_at > statement_timestamp()
GROUP BY line
""")

_TAKE_STARTS = statement("""
-- Parameters: line; count; most, the rate's; seconds, until a start is free again.
INSERT INTO rate_start (key, slot, free_at)
SELECT :line, n, statement_timestamp() + make_interval(secs => :seconds)
FROM generate_series(0, :most - 1) AS n
LEFT JOIN rate_start r ON r.key = :line AND r.slot = n
WHERE r.free_at IS NULL OR r.free_at <= statement_timestamp()
ORDER BY n LIMIT :count
ON CONFLICT (key, slot) DO UPDATE SET free_at = excluded.free_at
""")

_FORGET_STARTS = statement("""
-- Parameters: limit.
DELETE FROM rate_start WHERE (key, slot) IN (
    SELECT key, slot FROM rate_start WHERE free_at < now() - interval '1 hour' ORDER BY free_at LIMIT :limit
    FOR UPDATE SKIP LOCKED)
""")


@dataclass(frozen=True, slots=True)
class Starts:
    """Of a rate's line. ``taken``: starts that are not free; ``seconds``: until the first one of them is."""

    taken: int
    seconds: float


def lock(session: Session, lines: Collection[str]) -> None:
    """Let nobody else count these lines until the transaction ends."""
    if lines:
        session.execute(_LOCK, {"lines": sorted(lines)})


def running(session: Session, lines: Collection[str]) -> Mapping[str, int]:
    """How many events run that hold these limits; lines without any are missing."""
    if not lines:
        return {}
    return {row.line: row.running for row in session.execute(_RUNNING, {"lines": sorted(lines)})}


def starts(session: Session, lines: Collection[str]) -> Mapping[str, Starts]:
    """How many starts of these lines are taken."""
    if not lines:
        return {}
    rows = session.execute(_STARTS, {"lines": sorted(lines)})
    return {row.line: Starts(row.taken, row.seconds or 0.0) for row in rows}


def take_starts(session: Session, line: str, count: int, *, most: int, seconds: float) -> None:
    """Take starts that :func:`starts` has seen free, in the same transaction, under its lock."""
    session.execute(_TAKE_STARTS, {"line": line, "count": count, "most": most, "seconds": seconds})


def forget_starts(session: Session, *, limit: int) -> int:
    """Delete starts that have been free for an hour; returns how many."""
    return int(session.execute(_FORGET_STARTS, {"limit": limit}).rowcount)  # type: ignore[attr-defined]
