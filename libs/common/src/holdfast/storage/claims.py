"""Claims: taking due events, by their doorbells or by a search."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from holdfast.domain.errors import LaneTaken
from holdfast.domain.event import Doorbell, Lease
from holdfast.domain.transitions import Grant, claim
from holdfast.domain.update import Update
from holdfast.storage import candidates
from holdfast.storage.event_columns import EVENT_COLUMN_TYPES, EVENT_COLUMNS, stored_event
from holdfast.storage.lanes import ITS_TURN, wait_for_turn
from holdfast.storage.lifecycle import MOVE, MOVE_PARAMETERS, execute, violates
from holdfast.storage.pauses import VERSION
from holdfast.storage.planned import Planned
from holdfast.storage.statements import render, statement
from holdfast.storage.updates import update_of

__all__ = ["NO_LIMITS", "PLANNED", "Admit", "Limits", "Sort", "claim_due", "claim_events"]

MAX_WIDTH = 500
"""Candidates that one search looks at, at most, when the first ones have to wait for their turn."""

ROUNDS = 8
"""Looks of one search. An event that has been looked at and has to wait is not met again, so later searches get further."""

_CLAIM = Planned(
    "claim",
    render(
        MOVE + """
SELECT m.event_id, m.state, m.version, m.attempt, m.crashes, m.lease_token, m.held_lane_key, m.at, m.detail,
       {flow_version} AS flow_version, {columns}
FROM moved m JOIN event e ON e.id = m.event_id
""",
        held_lane_key="s.lane_key", turn=ITS_TURN, columns=EVENT_COLUMNS, flow_version=VERSION,
    ),
    parameters=MOVE_PARAMETERS,
    columns={
        "event_id": "uuid", "state": "text", "version": "int", "attempt": "int", "crashes": "int",
        "lease_token": "uuid", "held_lane_key": "uuid", "at": "timestamptz", "detail": "jsonb",
        "flow_version": "bigint", **EVENT_COLUMN_TYPES,
    },
)  # fmt: skip

PLANNED = (_CLAIM,)

NO_LINES: Mapping[str, int] = {}
NO_LIMITS: Mapping[UUID, str] = {}

_OUT_OF_TURN = statement("""
-- Parameters: event_ids. A claim that waited for the row of an event sees what was put in line meanwhile in that row alone,
-- and everything else as it was before (EvalPlanQual of READ COMMITTED); a statement of its own sees it all.
SELECT EXISTS (SELECT FROM processing_state s WHERE s.event_id = ANY (:event_ids) AND NOT {turn})
""", turn=ITS_TURN)  # fmt: skip

Limits = Mapping[UUID, str]
"""The limit that each event is to hold."""

Admit = Callable[[Session, Sequence[candidates.Candidate], int], tuple[Sequence[candidates.Candidate], Limits]]
"""Picks, of candidates whose turn it is, up to a number of those that may run now, and lets the others wait."""

Sort = Callable[[Session, Sequence[candidates.Candidate]], Sequence[candidates.Candidate]]
"""Picks the candidates that the caller can take, and does in the transaction what is to be done about the others."""


def claim_events(
    session: Session,
    doorbells: Iterable[Doorbell | tuple[UUID, int]],
    *,
    owner: str,
    lease_seconds: float,
    limits: Limits = NO_LIMITS,
) -> list[tuple[Lease, Update]]:
    """Lease the events that are due at the version their doorbell names; stale doorbells are missing from the answer.

    So are events of a lane whose turn it is not (see :func:`~holdfast.storage.lanes.wait_for_turn`). To be committed at once,
    before any handler runs; needs no durable commit.

    Raises:
        LaneTaken: a lane was taken, or made longer at its front, at this moment. The transaction is spent: roll back.
    """
    requested = [
        claim(event_id, version, Grant(uuid4(), owner, lease_seconds, limits.get(event_id)))
        for event_id, version, *_ in doorbells
    ]
    try:
        rows = execute(session, _CLAIM, requested, owner)
    except IntegrityError as exc:
        if violates(exc, "uq_processing_state_held_lane_key"):
            raise LaneTaken("another worker has just taken an event of this subject") from exc
        raise
    claimed = [(_lease(session, row, lease_seconds, limits), update_of(row)) for row in rows]
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
    lines: Mapping[str, int] = NO_LINES,
    pools: Sequence[str] = ("",),
    kinds: Sequence[candidates.Kind] | None = None,
    sort: Sort = lambda _, candidates: candidates,
    admit: Admit = lambda _, candidates, limit: (candidates[:limit], NO_LIMITS),
) -> list[tuple[Lease, Update]]:
    """Lease up to ``limit`` events that have been due for ``overdue_seconds``, without any doorbell.

    Two callers never get one event: rows that another one looks at are skipped. ``is_suspect`` chooses events that were
    with a lost worker before, and otherwise those that were not. ``unserved_types``: of these types, events that wait for a
    handler are taken first; and after them the first ones of ``lines``, so many of each. ``pools``: of these alone.
    ``kinds``: where to look, see ``candidates.kinds_of``; everywhere in the pools if not given.

    Raises:
        LaneTaken: as :func:`claim_events`.
    """

    def take(met: Sequence[candidates.Candidate], limit: int) -> list[tuple[Lease, Update]]:
        chosen = sort(session, met)
        waiting = wait_for_turn(session, [each.event_id for each in chosen if each.subject is not None])
        free, limits = admit(session, [each for each in chosen if each.event_id not in waiting], limit)
        doorbells = [each.doorbell for each in free]
        return claim_events(session, doorbells, owner=owner, lease_seconds=lease_seconds, limits=limits)

    claimed: list[tuple[Lease, Update]] = []
    if unserved_types:
        claimed = take(candidates.unserved(session, unserved_types, is_suspect=is_suspect, limit=limit), limit)
        if claimed:
            return claimed
    if lines:
        claimed += take(candidates.in_lines(session, lines, is_suspect=is_suspect, limit=limit), limit)
        if len(claimed) == limit:
            return claimed
    width = limit
    if not is_suspect and kinds is None:
        kinds = candidates.kinds_of(session, pools)
    for _ in range(ROUNDS):
        if is_suspect:
            met, most = candidates.due_suspects(session, pools, overdue_seconds=overdue_seconds, limit=width), width
        else:
            met, most = candidates.due(session, kinds or (), overdue_seconds, width)
        found = take(met, limit - len(claimed))
        if found or len(met) < most:
            return [*claimed, *found]
        width = min(width * 4, max(limit, MAX_WIDTH))
    return claimed


def _lease(session: Session, row: Row[Any], seconds: float, limits: Limits) -> Lease:
    return Lease(
        event=stored_event(session, row),
        token=row.lease_token,
        version=row.version,
        attempt=row.attempt,
        crashes=row.crashes,
        seconds=seconds,
        claimed_at=row.at,
        lane=row.held_lane_key,
        limit=limits.get(row.event_id),
        flow_version=row.flow_version,
    )
