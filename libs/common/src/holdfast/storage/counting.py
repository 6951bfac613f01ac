"""Counting: every update is in the counters exactly once, however many processes count and whenever they die (ADR 0039).

``statistics_cursor`` holds one snapshot, ``counted``: updates that it sees are in the counters. A turn locks that row,
takes the present's snapshot, adds the updates that the present sees and ``counted`` does not, and puts the present in its
place, all in one transaction. So the counters and the cursor move together or not at all, and of two processes one finds the
row locked and goes away. Why no update is passed over, however late its transaction commits, is told in ``storage.outbox``.

The outbox has a cursor of its own: it rests while Redis is away, which is when people look at charts.
"""

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log
from holdfast.storage.counters import ADD_PAGE, COUNTED_STATES, STEPS
from holdfast.storage.outbox import NOT_CONFIRMED
from holdfast.storage.snapshot import parse_snapshot
from holdfast.storage.statements import state_list, statement

__all__ = ["COUNT_AFTER_SECONDS", "IS_COUNTING_DUE", "MAX_NAMES", "count_page"]

log = logging.get(__name__)

COUNT_AFTER_SECONDS = 5.0
"""Between two turns. Longer ones have more updates of an event in one page, and are cheaper; charts are that much behind."""

MAX_NAMES = 50
"""Handlers, and as many types, that a tenant has counters of their own for; the rest is one more, "other"."""

_IS_RIPE = """
c.counted_at NOT BETWEEN statement_timestamp() - make_interval(secs => :count_after_seconds) AND statement_timestamp()
""".strip()

IS_COUNTING_DUE = f"""
SELECT {_IS_RIPE} AND ({NOT_CONFIRMED.format(snapshot="c.counted")})
    OR CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint)
       < CAST(split_part(c.counted, ':', 2) AS bigint)
FROM statistics_cursor c
""".strip()  # noqa: S608
"""Whether there is something to count, or to start over, as SQL. Parameter: count_after_seconds, between two turns."""

_LOCK = statement(
    """
-- Parameter: count_after_seconds.
-- The settings are for the statement that counts: its tables may be empty when it is planned, and only look-ups are right.
SELECT counted, counted_at, since, statement_timestamp() AS now,
       set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
       set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true)
FROM statistics_cursor c WHERE {is_ripe} FOR UPDATE SKIP LOCKED
""",
    is_ripe=_IS_RIPE,
)

_PRESENT = text("SELECT CAST(pg_current_snapshot() AS text)")
"""Of a statement after the lock: what an earlier holder of the lock has counted is in it."""

_MOVE = text("UPDATE statistics_cursor SET counted = :counted")

_FINISH = text("UPDATE statistics_cursor SET counted = :counted, counted_at = statement_timestamp()")

_START_OVER = (
    text("DELETE FROM state_count"),
    # One statement, so that the cursor and the counts are of one snapshot.
    statement("""
WITH cursor AS (
    UPDATE statistics_cursor SET counted = CAST(pg_current_snapshot() AS text), counted_at = statement_timestamp(),
                                 since = statement_timestamp()
)
INSERT INTO state_count (tenant, state, events)
SELECT e.tenant, s.state, count(*) FROM processing_state s JOIN event e ON e.id = s.event_id
WHERE s.state IN {counted_states} GROUP BY e.tenant, s.state
""", counted_states=state_list(COUNTED_STATES)),
)  # fmt: skip

_PRUNE = (
    text("""
-- By tenant, so that the key finds them. Parameters: step_seconds, kept_seconds.
DELETE FROM event_statistics s USING (SELECT DISTINCT tenant FROM state_count) t
WHERE s.tenant = t.tenant AND s.step_seconds = :step_seconds AND s.at < now() - make_interval(secs => :kept_seconds)
"""),
    text("""
DELETE FROM handler_statistics s USING (SELECT DISTINCT tenant FROM state_count) t
WHERE s.tenant = t.tenant AND s.step_seconds = :step_seconds AND s.at < now() - make_interval(secs => :kept_seconds)
"""),
)

_PRUNE_NAMES = text("DELETE FROM statistics_name WHERE seen_at < now() - make_interval(secs => :kept_seconds)")


def count_page(session: Session, *, limit: int, after_seconds: float = 0) -> int:
    """Add about ``limit`` updates to the counters; returns how many.

    More than ``limit`` where one transaction wrote more. Fewer when nothing is left, when another process is counting, or
    when all was counted less than ``after_seconds`` ago.
    """
    cursor = session.execute(_LOCK, {"count_after_seconds": after_seconds}).one_or_none()
    if cursor is None:
        return 0
    present, counted = parse_snapshot(session.scalars(_PRESENT).one()), parse_snapshot(cursor.counted)
    if present.end < counted.end:
        _start_over(session)
        return 0
    page = session.execute(ADD_PAGE, {
        "ended": [each for each in counted.running if present.sees(each)], "first": counted.end, "end": present.end,
        "running": list(present.running), "limit": limit, "since": cursor.since, "max_names": MAX_NAMES,
    }).one()  # fmt: skip
    if page.in_order >= limit:
        session.execute(_MOVE, {"counted": str(present.up_to(page.last))})
        return int(page.updates)
    session.execute(_FINISH, {"counted": str(present)})
    if _hour(cursor.now) != _hour(cursor.counted_at):
        _prune(session)
    return int(page.updates)


def _prune(session: Session) -> None:
    """Forget what is older than charts show: once an hour."""
    for step_seconds, kept_seconds in STEPS.items():
        for each in _PRUNE:
            session.execute(each, {"step_seconds": step_seconds, "kept_seconds": kept_seconds})
    session.execute(_PRUNE_NAMES, {"kept_seconds": max(STEPS.values())})


def _start_over(session: Session) -> None:
    """The database was restored into a server with lower ids, see ``outbox``: counters go on from here as they are."""
    for each in _START_OVER:
        session.execute(each)
    log.warning(Log.COUNTING_STARTED_OVER)


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)
