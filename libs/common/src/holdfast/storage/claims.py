"""Claims: taking due events, by their doorbells or by a search."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from holdfast.domain.event import Doorbell, Lease
from holdfast.domain.transitions import Grant, Transition, claim
from holdfast.domain.update import Update
from holdfast.storage.events import EVENT_COLUMNS, stored_event
from holdfast.storage.lifecycle import MOVE, execute, violates
from holdfast.storage.statements import render, statement
from holdfast.storage.updates import update_of

__all__ = ["claim_due", "claim_events", "next_in_lane"]

_OTHERS_TURN = """
EXISTS (SELECT FROM processing_state o JOIN event oe ON oe.id = o.event_id
        WHERE o.lane = s.lane AND o.event_id <> s.event_id AND o.state IN {OPEN}
          AND (o.held_lane IS NOT NULL OR (o.lane_at, o.event_id) < (s.lane_at, s.event_id)) AND oe.type ~ :ordered)
"""

_IS_ORDERED = "EXISTS (SELECT FROM event e WHERE e.id = s.event_id AND e.type ~ :ordered)"

_ITS_TURN = render(
    "(s.lane IS NULL OR NOT {is_ordered} OR NOT {others})", is_ordered=_IS_ORDERED, others=render(_OTHERS_TURN)
)
"""Whether an event may run: nobody of its lane does, and none that arrived before it is still to be done. Two claims may
both see it so; the unique index on ``held_lane`` then lets one of them in."""

_LEASES = """
SELECT m.event_id, m.state, m.version, m.attempt, m.crashes, m.lease_token, m.held_lane, m.at, m.detail, {columns}
FROM moved m JOIN event e ON e.id = m.event_id
"""

_CLAIM = statement(MOVE + _LEASES, held_lane="NULL", turn="true", columns=EVENT_COLUMNS)
_CLAIM_IN_TURN = statement(
    MOVE + _LEASES, held_lane=f"CASE WHEN {_IS_ORDERED} THEN s.lane END", turn=_ITS_TURN, columns=EVENT_COLUMNS
)

_DUE = """
-- Parameters: overdue_seconds, how long an event has been due at least; is_suspect; limit; ordered, for _DUE_IN_TURN.
SELECT s.event_id, s.version FROM processing_state s
WHERE s.state IN {CLAIMABLE} AND s.available_at <= now() - make_interval(secs => :overdue_seconds)
  AND (s.crashes > 0) = :is_suspect AND {turn}
ORDER BY s.available_at LIMIT :limit
FOR NO KEY UPDATE OF s SKIP LOCKED
"""

_DUE_ANY = statement(_DUE, turn="true")
_DUE_IN_TURN = statement(_DUE, turn=_ITS_TURN)

_NEXT_IN_LANE = statement("""
-- Parameters: lane; ordered, a regular expression of the ordered types.
SELECT s.event_id, s.version, s.crashes > 0 AS is_suspect, s.available_at <= now() AS is_due
FROM processing_state s JOIN event e ON e.id = s.event_id
WHERE s.lane = :lane AND s.state IN {OPEN} AND e.type ~ :ordered
ORDER BY s.lane_at, s.event_id LIMIT 1
""")


def claim_events(
    session: Session,
    doorbells: Iterable[Doorbell | tuple[UUID, int]],
    *,
    owner: str,
    lease_seconds: float,
    ordered: str | None = None,
) -> list[tuple[Lease, Update]]:
    """Lease the events that are due at the version their doorbell names; stale doorbells are missing from the answer.

    To be committed at once, before any handler runs; needs no durable commit. ``ordered`` is a regular expression of the
    event types that are taken one by one within their subject, in the order in which they arrived; those whose turn it is
    not are missing too.
    """
    requested = [claim(event_id, version, Grant(uuid4(), owner, lease_seconds)) for event_id, version, *_ in doorbells]
    rows = _claim(session, requested, owner, ordered)
    return [(_lease(row, lease_seconds), update_of(row)) for row in rows]


def claim_due(
    session: Session,
    *,
    owner: str,
    lease_seconds: float,
    limit: int,
    is_suspect: bool = False,
    overdue_seconds: float = 0.0,
    ordered: str | None = None,
) -> list[tuple[Lease, Update]]:
    """Lease up to ``limit`` events that have been due for ``overdue_seconds``, oldest first, without any doorbell.

    Two callers never get one event: rows that another one looks at are skipped. ``is_suspect`` chooses events that were
    with a lost worker before, and otherwise those that were not.
    """
    parameters: dict[str, Any] = {"limit": limit, "is_suspect": is_suspect, "overdue_seconds": overdue_seconds}
    if ordered is not None:
        parameters["ordered"] = ordered
    due = session.execute(_DUE_ANY if ordered is None else _DUE_IN_TURN, parameters).all()
    doorbells = [Doorbell(row.event_id, row.version) for row in due]
    return claim_events(session, doorbells, owner=owner, lease_seconds=lease_seconds, ordered=ordered)


def next_in_lane(session: Session, lane: int, *, ordered: str) -> Doorbell | None:
    """Whom to ring for once an event of the lane is done with: the first that is to be done, if it is due."""
    row = session.execute(_NEXT_IN_LANE, {"lane": lane, "ordered": ordered}).one_or_none()
    return Doorbell(row.event_id, row.version, row.is_suspect) if row is not None and row.is_due else None


def _claim(session: Session, requested: Sequence[Transition], owner: str, ordered: str | None) -> Any:
    if ordered is None:
        return execute(session, _CLAIM, requested, owner)
    try:
        with session.begin_nested():
            return execute(session, _CLAIM_IN_TURN, requested, owner, ordered=ordered)
    except IntegrityError as exc:
        if violates(exc, "uq_processing_state_held_lane"):
            return []  # another worker took one of the lanes at this moment; whoever looks next finds the others
        raise


def _lease(row: Row[Any], seconds: float) -> Lease:
    return Lease(
        event=stored_event(row),
        token=row.lease_token,
        version=row.version,
        attempt=row.attempt,
        crashes=row.crashes,
        seconds=seconds,
        claimed_at=row.at,
        lane=row.held_lane,
    )
