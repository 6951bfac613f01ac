"""Lanes: the events of one subject that are taken in order, one at a time.

An event is in a lane when it has a ``lane_key``. It gets one when it is recorded, if some processor has declared its type
ordered (``storage.served``), or from the first processor that meets it (:func:`assign`). Of each lane only the first open
event is looked for; the others wait (``waiting_since``) where no search meets them, until :func:`promote` calls the next one.
"""

from collections.abc import Callable, Iterable, Sequence
from uuid import UUID, uuid4

from sqlalchemy.orm import Session

from holdfast.domain.attributes import HANDLER
from holdfast.domain.event import Doorbell
from holdfast.storage.statements import render, statement

__all__ = [
    "ITS_TURN",
    "LANE_KEY",
    "WAIT_SECONDS",
    "assign",
    "is_in_line",
    "promote",
    "promote_forgotten",
    "wait_for_turn",
    "ordered_among",
]

WAIT_SECONDS = 3600.0
"""A waiting event is looked at again after this time, even if nobody calls it: by processors of the release before, say."""

LANE_KEY = (
    "CAST(encode(substring(sha256(convert_to(CAST(jsonb_build_array(tenant, source, subject) AS text), 'UTF8')) FOR 16),"
    " 'hex') AS uuid)"
)
"""128 bits of SHA-256: nobody can make a subject that shares its lane with another tenant's."""

ITS_TURN = render("""
(s.lane_key IS NULL OR NOT (
    EXISTS (SELECT FROM processing_state h
            WHERE h.held_lane_key = s.lane_key AND h.state = {PROCESSING} AND h.event_id <> s.event_id)
    OR EXISTS (SELECT FROM processing_state o
               WHERE o.lane_key = s.lane_key AND o.state IN {OPEN}
                 AND (o.lane_at, o.event_id) < (s.lane_at, s.event_id))))
""")
"""Whether event ``s`` may run: nobody of its lane does, and none that arrived before it is open. Two claims may both see
it so; the unique index on ``held_lane_key`` then lets one of them in. Each probe reads one index entry."""

_WAIT = statement(
    """
-- Parameters: event_ids; wait_seconds. SKIP LOCKED: a row that somebody has just claimed may stay locked for long.
UPDATE processing_state p SET
    waiting_since = coalesce(p.waiting_since, p.available_at), unserved_type = NULL, waits_in = NULL, dispatches = 0,
    available_at = now() + make_interval(secs => :wait_seconds),
    next_dispatch_at = now() + make_interval(secs => :wait_seconds)
FROM (
    SELECT s.event_id FROM processing_state s
    WHERE s.event_id = ANY (:event_ids) AND s.lane_key IS NOT NULL AND s.state {FOUND_CLAIMABLE}
      AND s.available_at <= now() AND NOT {turn}
    FOR NO KEY UPDATE OF s SKIP LOCKED
) w
WHERE p.event_id = w.event_id
RETURNING p.event_id, p.lane_key
""",
    turn=ITS_TURN,
)

_PROMOTE = statement("""
-- Parameters: lane_key.
WITH head AS (
    SELECT event_id, version, crashes, state, available_at, tenant_name, priority, pool FROM processing_state
    WHERE lane_key = :lane_key AND state IN {OPEN}
    ORDER BY lane_at, event_id LIMIT 1
), promoted AS (
    UPDATE processing_state s SET available_at = now(), next_dispatch_at = now() + interval '5 s', waiting_since = NULL
    FROM (
        SELECT p.event_id FROM processing_state p JOIN head USING (event_id)
        WHERE p.waiting_since IS NOT NULL AND p.unserved_type IS NULL AND p.state {FOUND_CLAIMABLE}
        FOR NO KEY UPDATE OF p SKIP LOCKED
    ) w
    WHERE s.event_id = w.event_id
    RETURNING s.event_id
)
SELECT event_id, version, crashes > 0 AS is_suspect, tenant_name, priority, pool FROM head
WHERE state IN {CLAIMABLE} AND (available_at <= now() OR event_id IN (SELECT event_id FROM promoted))
""")

_PROMOTE_FORGOTTEN = statement("""
-- The first event of each lane with waiting events, if it waits itself: who should have called it has crashed, or is of the
-- release before. Hops from lane to lane, so that it costs the number of lanes and not of events.
-- Parameters: start, the lane to begin after; limit, of lanes.
WITH RECURSIVE lanes(lane_key) AS (
    (SELECT lane_key FROM processing_state
     WHERE waiting_since IS NOT NULL AND unserved_type IS NULL AND state IN {CLAIMABLE} AND lane_key > :start
     ORDER BY lane_key LIMIT 1)
    UNION ALL
    SELECT (SELECT p.lane_key FROM processing_state p
            WHERE p.waiting_since IS NOT NULL AND p.unserved_type IS NULL AND p.state IN {CLAIMABLE}
              AND p.lane_key > l.lane_key
            ORDER BY p.lane_key LIMIT 1)
    FROM lanes l WHERE l.lane_key IS NOT NULL
), forgotten AS (
    SELECT p.event_id FROM (SELECT lane_key FROM lanes WHERE lane_key IS NOT NULL LIMIT :limit) l
    CROSS JOIN LATERAL (
        SELECT event_id FROM processing_state
        WHERE lane_key = l.lane_key AND state IN {OPEN} ORDER BY lane_at, event_id LIMIT 1
    ) head
    JOIN processing_state p ON p.event_id = head.event_id
    WHERE p.waiting_since IS NOT NULL AND p.unserved_type IS NULL AND p.state {FOUND_CLAIMABLE}
    FOR NO KEY UPDATE OF p SKIP LOCKED
)
UPDATE processing_state s SET available_at = now(), next_dispatch_at = now(), waiting_since = NULL
FROM forgotten f WHERE s.event_id = f.event_id
RETURNING s.event_id
""")

_TYPES = statement("""
-- Parameters: event_id; extension: events with it were made for one handler, and have no order. "lane", a 64-bit hash, finds
-- the events of the subject, and perhaps others: they do no harm here.
SELECT DISTINCT e.type FROM processing_state s
JOIN processing_state o ON o.lane = s.lane AND o.lane IS NOT NULL AND o.state IN {OPEN} AND o.lane_key IS NULL
-- OFFSET 0: one look-up an event. Where many events share a subject the planner would read all types instead.
CROSS JOIN LATERAL (SELECT type, extensions FROM event WHERE id = o.event_id OFFSET 0) e
WHERE s.event_id = :event_id AND NOT e.extensions ? :extension
""")

_ASSIGN = statement(
    """
-- Parameters: event_id; types, the ordered ones; extension, as above. Nothing is put in line behind an event that somebody
-- else has locked: an event in line may run as soon as no earlier one is in line.
WITH listed AS (
    SELECT o.event_id, o.lane_at, {lane_key} AS lane_key FROM processing_state s
    JOIN processing_state o ON o.lane = s.lane AND o.lane IS NOT NULL AND o.state IN {OPEN} AND o.lane_key IS NULL
    CROSS JOIN LATERAL (SELECT tenant, source, subject, type, extensions FROM event WHERE id = o.event_id OFFSET 0) e
    WHERE s.event_id = :event_id AND e.type = ANY (:types) AND NOT e.extensions ? :extension
), ours AS MATERIALIZED (
    SELECT o.event_id FROM processing_state o
    WHERE o.event_id = ANY (ARRAY(SELECT event_id FROM listed)) AND o.state IN {OPEN} AND o.lane_key IS NULL
    FOR NO KEY UPDATE OF o SKIP LOCKED
), missed AS (
    SELECT * FROM listed WHERE event_id NOT IN (SELECT event_id FROM ours)
)
UPDATE processing_state p SET lane_key = w.lane_key FROM listed w
WHERE p.event_id = w.event_id AND w.event_id IN (SELECT event_id FROM ours)
  AND NOT EXISTS (SELECT FROM missed m
                  WHERE m.lane_key = w.lane_key AND (m.lane_at, m.event_id) < (w.lane_at, w.event_id))
""",
    lane_key=LANE_KEY,
)

_IS_IN_LINE = statement("""
-- Parameters: event_id.
SELECT lane_key IS NOT NULL FROM processing_state WHERE event_id = :event_id
""")


def wait_for_turn(session: Session, event_ids: Sequence[UUID]) -> dict[UUID, UUID]:
    """Let those of these due events wait whose turn it is not; returns their lanes by their ids.

    After the commit :func:`promote` each lane: the event that went before may have ended in between.
    """
    if not event_ids:
        return {}
    parameters = {"event_ids": list(event_ids), "wait_seconds": WAIT_SECONDS}
    return {row.event_id: row.lane_key for row in session.execute(_WAIT, parameters)}


def promote(session: Session, lane_key: UUID) -> Doorbell | None:
    """Make the first open event of a lane claimable; the doorbell to ring for it, unless it is running or not due."""
    row = session.execute(_PROMOTE, {"lane_key": lane_key}).one_or_none()
    if row is None:
        return None
    return Doorbell(row.event_id, row.version, row.is_suspect, row.tenant_name, row.priority, row.pool)


def promote_forgotten(session: Session, *, limit: int) -> int:
    """Promote the first events of up to ``limit`` lanes that nobody called; they are due for redispatch. Returns how many."""
    # From a random lane on, so that no lane is left out when there are more than the limit.
    starts = (uuid4(), UUID(int=0))
    return sum(len(session.execute(_PROMOTE_FORGOTTEN, {"start": each, "limit": limit}).all()) for each in starts)


def assign(session: Session, event_id: UUID, is_ordered: Callable[[str], bool]) -> list[str]:
    """Put the open events of this event's subject into their lane, those of ordered types; returns these types.

    For events that were recorded before anybody had declared their type ordered. All of the subject at once, up to the first
    one that somebody else has locked, so that none overtakes another.
    """
    types = ordered_among(session.scalars(_TYPES, {"event_id": event_id, "extension": HANDLER}), is_ordered)
    if types:
        session.execute(_ASSIGN, {"event_id": event_id, "types": types, "extension": HANDLER})
    return types


def is_in_line(session: Session, event_id: UUID) -> bool:
    """Whether an event is in a lane, after :func:`assign`."""
    return bool(session.scalar(_IS_IN_LINE, {"event_id": event_id}))


def ordered_among(types: Iterable[str], is_ordered: Callable[[str], bool]) -> list[str]:
    """The ordered ones."""
    return sorted(each for each in types if is_ordered(each))
