"""Claims: taking due events, by their doorbells or by a search."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, TextClause
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from holdfast.domain.errors import LaneTaken
from holdfast.domain.event import Doorbell, Lease
from holdfast.domain.transitions import Grant, claim
from holdfast.domain.update import Update
from holdfast.storage.event_columns import EVENT_COLUMN_TYPES, EVENT_COLUMNS, ROUTE, stored_event
from holdfast.storage.lanes import ITS_TURN, wait_for_turn
from holdfast.storage.lifecycle import MOVE, MOVE_PARAMETERS, execute, violates
from holdfast.storage.planned import Planned
from holdfast.storage.statements import render, statement
from holdfast.storage.updates import update_of

__all__ = ["PLANNED", "Candidate", "Sort", "claim_due", "claim_events", "look"]

MAX_WIDTH = 500
"""Candidates that one search looks at, at most, when the first ones have to wait for their turn."""

ROUNDS = 8
"""Looks of one search. An event that has been looked at and has to wait is not met again, so later searches get further."""

_CLAIM = Planned(
    "claim",
    render(
        MOVE + """
SELECT m.event_id, m.state, m.version, m.attempt, m.crashes, m.lease_token, m.held_lane_key, m.at, m.detail, {columns}
FROM moved m JOIN event e ON e.id = m.event_id
""",
        held_lane_key="s.lane_key", turn=ITS_TURN, columns=EVENT_COLUMNS,
    ),
    parameters=MOVE_PARAMETERS,
    columns={
        "event_id": "uuid", "state": "text", "version": "int", "attempt": "int", "crashes": "int",
        "lease_token": "uuid", "held_lane_key": "uuid", "at": "timestamptz", "detail": "jsonb", **EVENT_COLUMN_TYPES,
    },
)  # fmt: skip

PLANNED = (_CLAIM,)

_OUT_OF_TURN = statement("""
-- Parameters: event_ids. A claim that waited for the row of an event sees what was put in line meanwhile in that row alone,
-- and everything else as it was before (EvalPlanQual of READ COMMITTED); a statement of its own sees it all.
SELECT EXISTS (SELECT FROM processing_state s WHERE s.event_id = ANY (:event_ids) AND NOT {turn})
""", turn=ITS_TURN)  # fmt: skip

_CANDIDATES = render("""
SELECT s.event_id, s.version, {route} AS type, e.subject IS NOT NULL AS has_subject, s.lane_key IS NOT NULL AS has_lane,
       CAST(extract(epoch FROM now() - coalesce(s.waiting_since, s.available_at)) AS float8) AS waited_seconds,
       s.unserved_type IS NOT NULL AS is_unserved,
       s.unserved_type IS NOT NULL AND EXISTS (
           SELECT FROM event_update u
           WHERE u.event_id = s.event_id AND u.version = s.version AND u.detail->>'reason' = 'no_handler') AS is_reported
FROM {states} s JOIN event e ON e.id = s.event_id
""", states="{states}", route=ROUTE)  # fmt: skip

_DUE = statement("""
-- Parameters: overdue_seconds, how long an event has been due at least; limit. Chosen before anything is joined: where
-- statistics are older than a backlog the planner would join all of it first.
WITH due AS MATERIALIZED (
    SELECT s.* FROM processing_state s
    WHERE s.state IN {CLAIMABLE} AND s.available_at <= now() - make_interval(secs => :overdue_seconds) AND s.crashes = 0
    ORDER BY s.available_at LIMIT :limit
    FOR NO KEY UPDATE OF s SKIP LOCKED
)
{candidates}
ORDER BY s.available_at
""", candidates=_CANDIDATES.format(states="due"))  # fmt: skip

_DUE_SUSPECTS = statement("""
-- As above, of suspects, which have an index of their own: few, among however many others are due.
WITH due AS MATERIALIZED (
    SELECT s.* FROM processing_state s
    WHERE s.state IN {CLAIMABLE} AND s.available_at <= now() - make_interval(secs => :overdue_seconds) AND s.crashes > 0
    ORDER BY s.available_at LIMIT :limit
    FOR NO KEY UPDATE OF s SKIP LOCKED
)
{candidates}
ORDER BY s.available_at
""", candidates=_CANDIDATES.format(states="due"))  # fmt: skip

_UNSERVED = statement("""
-- Events that wait for a handler. Parameters: types, those that the caller serves; is_suspect; limit.
{candidates}
WHERE s.state IN {CLAIMABLE} AND s.unserved_type = ANY (:types) AND (s.crashes > 0) = :is_suspect
ORDER BY s.waiting_since LIMIT :limit
FOR NO KEY UPDATE OF s SKIP LOCKED
""", candidates=_CANDIDATES.format(states="processing_state"))  # fmt: skip

_AT_VERSION = statement("""
-- Parameters: doorbells, JSON array of {{event_id, version}}.
{candidates}
WHERE s.state {FOUND_CLAIMABLE} AND coalesce(s.waiting_since, s.available_at) <= now() AND EXISTS (
    SELECT FROM jsonb_to_recordset(CAST(:doorbells AS jsonb)) AS d(event_id uuid, version int)
    WHERE d.event_id = s.event_id AND d.version = s.version)
  AND s.event_id = ANY (:event_ids)
FOR NO KEY UPDATE OF s SKIP LOCKED
""", candidates=_CANDIDATES.format(states="processing_state"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Candidate:
    """A due event, locked until the transaction ends, before it is decided what becomes of it.

    ``type``: its route (``StoredEvent.route``). ``waited_seconds``: since it became due. ``is_unserved``: it waits for a
    handler; ``is_reported``: clients know.
    """

    event_id: UUID
    version: int
    type: str
    has_subject: bool
    has_lane: bool
    waited_seconds: float
    is_unserved: bool
    is_reported: bool

    @property
    def doorbell(self) -> Doorbell:
        """What would be rung for it."""
        return Doorbell(self.event_id, self.version)


Sort = Callable[[Session, Sequence[Candidate]], Sequence[Candidate]]
"""Picks the candidates that the caller can take, and does in the transaction what is to be done about the others."""


def claim_events(
    session: Session, doorbells: Iterable[Doorbell | tuple[UUID, int]], *, owner: str, lease_seconds: float
) -> list[tuple[Lease, Update]]:
    """Lease the events that are due at the version their doorbell names; stale doorbells are missing from the answer.

    So are events of a lane whose turn it is not (see :func:`~holdfast.storage.lanes.wait_for_turn`). To be committed at once,
    before any handler runs; needs no durable commit.

    Raises:
        LaneTaken: a lane was taken, or made longer at its front, at this moment. The transaction is spent: roll back.
    """
    requested = [claim(event_id, version, Grant(uuid4(), owner, lease_seconds)) for event_id, version, *_ in doorbells]
    try:
        rows = execute(session, _CLAIM, requested, owner)
    except IntegrityError as exc:
        if violates(exc, "uq_processing_state_held_lane_key"):
            raise LaneTaken("another worker has just taken an event of this subject") from exc
        raise
    claimed = [(_lease(row, lease_seconds), update_of(row)) for row in rows]
    in_lanes = [lease.event.id for lease, _ in claimed if lease.lane is not None]
    if in_lanes and session.scalar(_OUT_OF_TURN, {"event_ids": in_lanes}):
        raise LaneTaken("an earlier event of the subject has just been put in line")
    return claimed


def claim_due(
    session: Session,
    *,
    owner: str,
    lease_seconds: float,
    limit: int,
    is_suspect: bool = False,
    overdue_seconds: float = 0.0,
    unserved_types: Sequence[str] = (),
    sort: Sort = lambda _, candidates: candidates,
) -> list[tuple[Lease, Update]]:
    """Lease up to ``limit`` events that have been due for ``overdue_seconds``, oldest first, without any doorbell.

    Two callers never get one event: rows that another one looks at are skipped. ``is_suspect`` chooses events that were
    with a lost worker before, and otherwise those that were not. ``unserved_types``: of these types, events that wait for a
    handler are taken first.

    Raises:
        LaneTaken: as :func:`claim_events`.
    """

    def take(candidates: Sequence[Candidate]) -> list[tuple[Lease, Update]]:
        chosen = sort(session, candidates)
        waiting = wait_for_turn(session, [each.event_id for each in chosen if each.has_subject])
        free = [each.doorbell for each in chosen if each.event_id not in waiting][:limit]
        return claim_events(session, free, owner=owner, lease_seconds=lease_seconds)

    if unserved_types:
        kind = {"types": list(unserved_types), "is_suspect": is_suspect, "limit": limit}
        if claimed := take(_candidates(session, _UNSERVED, kind)):
            return claimed
    width, due = limit, _DUE_SUSPECTS if is_suspect else _DUE
    for _ in range(ROUNDS):
        candidates = _candidates(session, due, {"overdue_seconds": overdue_seconds, "limit": width})
        if (claimed := take(candidates)) or len(candidates) < width:
            return claimed
        width = min(width * 4, max(limit, MAX_WIDTH))
    return []


def look(session: Session, doorbells: Iterable[Doorbell | tuple[UUID, int]]) -> list[Candidate]:
    """The events that are due at the version their doorbell names, but for those that somebody else looks at."""
    listed = [{"event_id": str(event_id), "version": version} for event_id, version, *_ in doorbells]
    parameters = {"doorbells": json.dumps(listed), "event_ids": [UUID(str(each["event_id"])) for each in listed]}
    return _candidates(session, _AT_VERSION, parameters)


def _candidates(session: Session, sql: TextClause, parameters: dict[str, Any]) -> list[Candidate]:
    return [Candidate(**row) for row in session.execute(sql, parameters).mappings()]


def _lease(row: Row[Any], seconds: float) -> Lease:
    return Lease(
        event=stored_event(row),
        token=row.lease_token,
        version=row.version,
        attempt=row.attempt,
        crashes=row.crashes,
        seconds=seconds,
        claimed_at=row.at,
        lane=row.held_lane_key,
    )
