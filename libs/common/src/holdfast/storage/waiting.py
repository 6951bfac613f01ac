"""What is known of an open event that waits: a few look-ups by key and bounded counts along an index, nothing else."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.orm import Session

from holdfast.domain.state import OPEN, State
from holdfast.domain.waiting import (
    MOST_AHEAD,
    MOST_BEFORE,
    Aside,
    Facts,
    Fleet,
    Line,
    Queue,
    Run,
    Standing,
    Waiting,
    Worker,
    explain,
)
from holdfast.domain.window import DEBOUNCE_SECONDS
from holdfast.storage import nodes, pauses
from holdfast.storage.nodes import NodeView
from holdfast.storage.statements import statement

__all__ = ["why"]

_STANDING = statement("""
-- Parameters: event_id. The setting is for the statements behind it, to the end of the transaction: where statistics are
-- older than a backlog or a line, indexes over open events seem empty, and all of them would be read and sorted.
SELECT set_config('enable_sort', 'off', true),
       s.event_id, e.type, e.subject, s.state, s.attempt, s.crashes, s.lease_expires_at, s.lane_key, s.lane_at,
       coalesce(s.waiting_since, s.available_at) AS available_at, s.waiting_since IS NOT NULL AS waits_aside,
       s.unserved_type > '' AS is_unserved, CASE WHEN s.unserved_type = '' THEN s.waits_in END AS waits_in,
       u.detail ? 'deliver_at' AS is_scheduled, s.version = 1 AND e.extensions ? '{debounce}' AS is_debounced,
       u.detail ->> 'reason' = 'snoozed' AS is_snoozed, u.detail ->> 'reason' = 'sleeping' AS is_sleeping,
       s.last_error->>'type' AS error_type, now() AS now, u.at AS moved_at
FROM processing_state s
JOIN event e ON e.id = s.event_id
LEFT JOIN event_update u ON u.event_id = s.event_id AND u.version = s.version
WHERE s.event_id = :event_id
""", debounce=DEBOUNCE_SECONDS)  # fmt: skip

_LINE = statement("""
-- Parameters: event_id, lane_key, lane_at; most, to count up to. The one at the front: who holds the lane, else its first.
SELECT (SELECT count(*) FROM (
            SELECT FROM processing_state o
            WHERE o.lane_key = :lane_key AND o.state IN {OPEN} AND (o.lane_at, o.event_id) < (:lane_at, :event_id)
            ORDER BY o.lane_at, o.event_id LIMIT :most) a) AS ahead,
       f.event_id, f.state, f.due_at
FROM (
    (SELECT 1 AS rank, h.event_id, h.state, h.available_at AS due_at FROM processing_state h
     WHERE h.held_lane_key = :lane_key AND h.state = {PROCESSING})
    UNION ALL
    (SELECT 2, o.event_id, o.state, coalesce(o.waiting_since, o.available_at) FROM processing_state o
     WHERE o.lane_key = :lane_key AND o.state IN {OPEN} ORDER BY o.lane_at, o.event_id LIMIT 1)
    ORDER BY rank LIMIT 1
) f
""")

_ASIDE = statement("""
-- Parameters: event_id, waits_in, since; most, to count up to.
SELECT (SELECT count(*) FROM (
            SELECT FROM processing_state o
            WHERE o.waits_in = :waits_in AND o.unserved_type IS NOT NULL AND o.state IN {CLAIMABLE}
              AND (o.waiting_since, o.event_id) < (:since, :event_id) LIMIT :most) a) AS ahead,
       (SELECT count(*) FROM processing_state r WHERE r.held_limit = :waits_in AND r.state = {PROCESSING}) AS running,
       (SELECT min(free_at) FROM rate_start WHERE key = :waits_in AND free_at > now()) AS free_at
""")

_QUEUE_OF = """
-- Parameters: available_at; most, to count up to.
SELECT count(*) FILTER (WHERE b.available_at < :available_at) AS before, min(b.available_at) AS oldest_due_at
FROM (SELECT o.available_at FROM processing_state o
      WHERE o.state IN {CLAIMABLE} AND {crashes} ORDER BY o.available_at LIMIT :most) b
"""

_QUEUE = {
    False: statement(_QUEUE_OF, crashes="o.crashes = 0"),
    True: statement(_QUEUE_OF, crashes="o.crashes > 0"),
}
"""By whether the event is a suspect: those are looked for in an index of their own."""


def why(session: Session, event_id: UUID) -> Waiting | None:
    """Why an open event waits; ``None`` for one that is not there or not open. Whose event it is has been asked before."""
    row = session.execute(_STANDING, {"event_id": event_id}).one_or_none()
    if row is None or State(row.state) not in OPEN:
        return None
    listed = [node for node in nodes.list_nodes(session) if node.service == "processor"]
    standing = _standing(row)
    is_due = standing.state is not State.PROCESSING and standing.available_at <= standing.now
    return explain(
        Facts(
            standing=standing,
            fleet=Fleet([worker for node in listed for worker in _workers(node)]),
            line=None if row.lane_key is None else _line(session, row),
            aside=None if row.waits_in is None else _aside(session, row),
            queue=_queue(session, standing.available_at, is_suspect=row.crashes > 0) if is_due else None,
            run=_run(listed, event_id),
        )
    )


def _standing(row: Row[Any]) -> Standing:
    return Standing(
        now=row.now, event_id=row.event_id, type=row.type, subject=row.subject, state=State(row.state),
        attempt=row.attempt, crashes=row.crashes, available_at=row.available_at, waits_aside=row.waits_aside,
        is_unserved=bool(row.is_unserved), is_scheduled=bool(row.is_scheduled), is_snoozed=bool(row.is_snoozed),
        is_sleeping=bool(row.is_sleeping), is_debounced=bool(row.is_debounced), moved_at=row.moved_at,
        error_type=row.error_type,
        lease_expires_at=row.lease_expires_at,
    )  # fmt: skip


def _line(session: Session, row: Row[Any]) -> Line | None:
    parameters = {
        "event_id": row.event_id, "lane_key": row.lane_key, "lane_at": row.lane_at, "most": MOST_AHEAD + 1,
    }  # fmt: skip
    found = session.execute(_LINE, parameters).one_or_none()
    return None if found is None else Line(found.ahead, found.event_id, State(found.state), found.due_at)


def _aside(session: Session, row: Row[Any]) -> Aside:
    parameters = {
        "event_id": row.event_id, "waits_in": row.waits_in, "since": row.available_at, "most": MOST_AHEAD + 1,
    }  # fmt: skip
    found = session.execute(_ASIDE, parameters).one()
    kind, _, rest = row.waits_in.partition(":")
    if kind == "pause":
        paused = next((each for each in pauses.read(session) if each.line == row.waits_in), None)
        return Aside(kind=kind, handler=None, key=None, ahead=found.ahead, paused=paused)
    handler, _, key = rest.partition(":")
    return Aside(
        kind=kind, handler=handler, key=key or None, ahead=found.ahead, running=found.running, free_at=found.free_at
    )


def _queue(session: Session, available_at: datetime, *, is_suspect: bool) -> Queue:
    found = session.execute(_QUEUE[is_suspect], {"available_at": available_at, "most": MOST_BEFORE + 1}).one()
    return Queue(found.before, found.oldest_due_at)


def _workers(node: NodeView) -> list[Worker]:
    # Of a list that was cut off nobody knows what it lacks.
    types = [*node.types, "*"] if len(node.types) >= nodes.MOST_TYPES else node.types
    return [
        Worker(
            node.id, worker.slots, min(worker.busy, worker.slots), worker.is_suspect,
            node.drain_since is not None or worker.is_draining, worker.is_broker_away, types,
        )
        for worker in node.workers
        if not worker.is_stale
    ]  # fmt: skip


def _run(listed: list[NodeView], event_id: UUID) -> Run | None:
    for node in listed:
        for worker in node.workers:
            for each in worker.running:
                if each.event_id == str(event_id):
                    return Run(node.id, node.host, each.handler, is_heard=not worker.is_stale)
    return None
