"""What processors serve, as far as others depend on it: ordered types, and types that some processor does not know.

Recording looks here for ordered types, since ingest knows no handlers. An event of a type that a processor does not serve
waits (``unserved_type``) until one that does looks for it, or until it has waited too long.
"""

from collections.abc import Callable, Sequence
from uuid import UUID

from sqlalchemy.orm import Session

from holdfast.storage.event_columns import ROUTE
from holdfast.storage.lanes import WAIT_SECONDS
from holdfast.storage.statements import statement

__all__ = [
    "IS_ORDERED",
    "SEEN_SECONDS",
    "declare_ordered",
    "is_served_elsewhere",
    "note_served",
    "reconcile",
    "unserved_types",
    "wait_for_handler",
]

MAX_TYPES = 10_000
"""Types that are remembered; beyond, ordered events cost their processor two more statements each, and nothing else."""

SEEN_SECONDS = 60.0
"""A processor that serves a type for which events wait says so every few seconds. After this time it is taken to be gone."""

IS_ORDERED = "EXISTS (SELECT FROM served_type t WHERE t.type = {alias}.type AND t.is_ordered)"
"""A guard for :func:`~holdfast.storage.statements.render`'s parts, to be formatted with the alias of the event's row."""

_KNOWN = statement("SELECT type, is_ordered FROM served_type")

_DECLARE = statement("""
-- Parameters: types; is_ordered; max_types.
INSERT INTO served_type (type, is_ordered)
SELECT t, :is_ordered FROM unnest(CAST(:types AS text[])) AS t
WHERE (SELECT count(*) FROM served_type) < :max_types
ORDER BY t
ON CONFLICT (type) DO UPDATE SET is_ordered = excluded.is_ordered WHERE served_type.is_ordered <> excluded.is_ordered
""")

_LEAVE_LANES = statement("""
-- Parameters: types, whose handlers are no longer ordered. Events that run keep their lanes until they are done.
UPDATE processing_state s SET
    lane_key = NULL,
    available_at = CASE WHEN l.is_waiting THEN now() ELSE s.available_at END,
    next_dispatch_at = CASE WHEN l.is_waiting THEN now() ELSE s.next_dispatch_at END,
    waiting_since = CASE WHEN l.is_waiting THEN NULL ELSE s.waiting_since END
FROM (
    SELECT p.event_id, p.waiting_since IS NOT NULL AND p.unserved_type IS NULL AS is_waiting
    FROM processing_state p JOIN event e ON e.id = p.event_id
    WHERE p.lane_key IS NOT NULL AND p.state IN {CLAIMABLE} AND e.type = ANY (:types)
    FOR NO KEY UPDATE OF p SKIP LOCKED
) l
WHERE s.event_id = l.event_id
""")

_NOTE = statement("""
-- Parameters: types; is_ordered is left as it is where the type is known.
INSERT INTO served_type (type, is_ordered) SELECT t, false FROM unnest(CAST(:types AS text[])) AS t ORDER BY t
ON CONFLICT (type) DO UPDATE SET seen_at = now() WHERE served_type.seen_at < now() - interval '10 s'
""")

_IS_SEEN = statement("""
-- Parameters: type; seen_seconds.
SELECT EXISTS (SELECT FROM served_type WHERE type = :type AND seen_at > now() - make_interval(secs => :seen_seconds))
""")

_UNSERVED_TYPES = statement("""
-- Hops from type to type, so that it costs the number of types and not of events. Parameters: limit.
WITH RECURSIVE types(type) AS (
    (SELECT unserved_type FROM processing_state
     WHERE unserved_type > '' AND unserved_type IS NOT NULL AND state IN {CLAIMABLE} ORDER BY unserved_type LIMIT 1)
    UNION ALL
    SELECT (SELECT p.unserved_type FROM processing_state p
            WHERE p.unserved_type IS NOT NULL AND p.state IN {CLAIMABLE} AND p.unserved_type > t.type
            ORDER BY p.unserved_type LIMIT 1)
    FROM types t WHERE t.type IS NOT NULL
)
SELECT type FROM types WHERE type IS NOT NULL LIMIT :limit
""")

_WAIT = statement(
    """
-- Parameters: event_ids; wait_seconds; look_again_seconds, when the bell is rung again.
UPDATE processing_state s SET
    waiting_since = coalesce(s.waiting_since, s.available_at), unserved_type = {route}, waits_in = NULL, dispatches = 0,
    available_at = now() + make_interval(secs => :wait_seconds),
    next_dispatch_at = now() + make_interval(secs => :look_again_seconds)
FROM event e
WHERE s.event_id = ANY (:event_ids) AND e.id = s.event_id AND s.state {FOUND_CLAIMABLE}
""",
    route=ROUTE,
)


def reconcile(session: Session, exact_types: Sequence[str], serves: Callable[[str], bool | None]) -> None:
    """Bring the ordered types in line with a processor that starts.

    ``exact_types``: those that its handlers name without ``*``. ``serves``: whether a type is ordered; ``None`` for one
    that it does not serve, which is left as it is, since another processor may.
    """
    known = {row.type: row.is_ordered for row in session.execute(_KNOWN)}
    ordered = [each for each in {*known, *exact_types} if serves(each) and not known.get(each)]
    unordered = [each for each, is_ordered in known.items() if is_ordered and serves(each) is False]
    declare_ordered(session, ordered)
    if unordered:
        session.execute(_DECLARE, {"types": unordered, "is_ordered": False, "max_types": MAX_TYPES + len(known)})
        session.execute(_LEAVE_LANES, {"types": unordered})


def declare_ordered(session: Session, types: Sequence[str]) -> None:
    """From now on events of these types are recorded into their lanes."""
    if types:
        session.execute(_DECLARE, {"types": sorted(types), "is_ordered": True, "max_types": MAX_TYPES})


def unserved_types(session: Session, *, limit: int = 1000) -> list[str]:
    """The types of events that wait for a handler, ``limit`` at most."""
    return list(session.scalars(_UNSERVED_TYPES, {"limit": limit}))


def note_served(session: Session, types: Sequence[str]) -> None:
    """Say that a live processor serves these types, so that nobody gives their events up while it is busy."""
    if types:
        session.execute(_NOTE, {"types": sorted(types)})


def is_served_elsewhere(session: Session, type_: str) -> bool:
    """Whether a processor said so within the last minute."""
    return bool(session.scalar(_IS_SEEN, {"type": type_, "seen_seconds": SEEN_SECONDS}))


def wait_for_handler(session: Session, event_ids: Sequence[UUID], *, look_again_seconds: float) -> None:
    """Let claimable events wait for a processor that serves their type."""
    parameters = {"wait_seconds": WAIT_SECONDS, "look_again_seconds": look_again_seconds}
    if event_ids:
        session.execute(_WAIT, {"event_ids": list(event_ids), **parameters})
