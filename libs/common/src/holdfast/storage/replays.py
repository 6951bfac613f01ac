"""Replays and discards by filter: a set of events, frozen when it is asked for and worked off at a bounded rate.

The set is kept as items, each with the version that its event had then. The version is the fence: an event that somebody
has moved since is skipped, so none goes round twice however often it is asked for. Here sets are made, shown and stopped;
``storage.replay_batches`` works them off. A discard is such a set too, with another ``Action``.
"""

import json
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, insert, literal, select, text
from sqlalchemy.orm import Session

from holdfast.domain.state import State
from holdfast.runtime.ids import uuid7
from holdfast.storage.audit import Actor, note
from holdfast.storage.filters import EventFilter, conditions
from holdfast.storage.operate import DISCARDABLE, REPLAYABLE
from holdfast.storage.statements import statement
from holdfast.storage.tables import Event, ProcessingState, ReplayItem

__all__ = [
    "IS_RUNNING",
    "MAX_ITEMS",
    "MAX_RATE_PER_S",
    "MIN_RATE_PER_S",
    "Action",
    "JobState",
    "NotStarted",
    "Replay",
    "ReplayPage",
    "cancel",
    "count_matching",
    "find_replay",
    "list_replays",
    "start_replay",
]

MAX_ITEMS = 100_000
"""Events in one replay. Freezing them is one statement within a request, and so many take it about a second."""

MIN_RATE_PER_S = 0.01
"""An event every 100 s. A rate of next to nothing is a replay that never ends; cancelling it is clearer."""

MAX_RATE_PER_S = 1000.0

_BEGIN = text("""
INSERT INTO replay_job
    (id, tenant, idempotency_key, action, created_by, created_by_name, filter, rate_per_s, total, state)
VALUES
    (:id, :tenant, :idempotency_key, :action, :actor, :actor_name, CAST(:filter AS jsonb), :rate_per_s, 0, :running)
ON CONFLICT ON CONSTRAINT uq_replay_job_request DO NOTHING
RETURNING id
""")

_SET_TOTAL = text("""
UPDATE replay_job SET total = :total, state = CASE WHEN :total = 0 THEN :done ELSE state END,
                      finished_at = CASE WHEN :total = 0 THEN now() END
WHERE id = :id
RETURNING *
""")

_REPEATED = text("SELECT * FROM replay_job WHERE tenant = :tenant AND idempotency_key = :idempotency_key")

_FIND = text("SELECT * FROM replay_job WHERE tenant = :tenant AND id = :id AND action = :action")

IS_RUNNING = "state IN ('running', 'discarding')"
"""A job that is under way, as the partial index has it. Which of the two its action decides: see ``ReplayJob``."""

_LIST = text("""
-- Parameters: tenant; action; before_id and state, or NULL; limit.
SELECT * FROM replay_job
WHERE tenant = :tenant AND action = :action AND (CAST(:before_id AS uuid) IS NULL OR id < :before_id)
  AND (CAST(:state AS text) IS NULL OR state = :state)
ORDER BY id DESC LIMIT :limit
""")

_CANCEL = statement("""
-- Waits for a batch under way: once this is committed no further event is replayed.
UPDATE replay_job SET state = :cancelled, finished_at = now()
WHERE tenant = :tenant AND id = :id AND action = :action AND {running}
RETURNING *
""", running=IS_RUNNING)  # fmt: skip


class Action(StrEnum):
    """What is done to each event of a set. Stored as its text value."""

    REPLAY = "replay"
    DISCARD = "discard"


_LOOK_UP = text("""
-- Of a type with some thousands of events the planner would rather read all states than look each one up.
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
       set_config('enable_mergejoin', 'off', true)
""")

_STATES = {Action.REPLAY: REPLAYABLE, Action.DISCARD: DISCARDABLE | {State.PROCESSING}}
"""In which states the events of a set may be. Those that run are not discarded: they are asked for to be cancelled."""

_RUNNING_WORD = {Action.REPLAY: "running", Action.DISCARD: "discarding"}


class NotStarted(StrEnum):
    """Why a replay was not started. Roll back: nothing of it may stay."""

    TOO_MANY_EVENTS = "too_many_events"
    """The filter matches more events than one replay takes."""

    KEY_REUSED = "key_reused"
    """The idempotency key belongs to another action, or to one with another filter or another rate."""


class JobState(StrEnum):
    """Where a replay or a discard stands."""

    RUNNING = "running"
    """Maintenance takes its items, at the rate that was asked for."""

    DONE = "done"
    """Every item was acted on or skipped."""

    CANCELLED = "cancelled"
    """An operator stopped it. What was done by then stays so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A replay or discard by filter, and how far it is. ``skipped``: events that had moved on since the set was frozen;
    ``replayed``: those that were replayed or, of a discard, discarded; of events that ran, those whose cancel was asked for.

    ``failures`` turns in a row have ended with an exception, the last one with the type ``last_error``; it is tried again.
    """

    id: UUID
    action: Action
    created_by: str
    created_by_name: str | None
    created_at: datetime
    filter: dict[str, Any]
    rate_per_s: float
    total: int
    replayed: int
    skipped: int
    state: JobState
    finished_at: datetime | None
    failures: int
    last_error: str | None


@dataclass(frozen=True, slots=True)
class ReplayPage:
    """Replays, newest first. ``next_id``: the next page's ``before_id``; ``None`` on the last page."""

    items: list[Replay]
    next_id: UUID | None


def count_matching(session: Session, wanted: EventFilter, *, tenant: str, most: int | None = None) -> int:
    """How many events a replay or discard that was started now would have.

    With ``most``, ``most + 1`` stands for all that are more: it takes a second to count half a million. The transaction's
    further statements then are planned as this one is.
    """
    if most is not None:
        session.execute(_LOOK_UP)
    matching = (
        select(Event.id)
        .join(ProcessingState, ProcessingState.event_id == Event.id)
        .where(*conditions(wanted, tenant=tenant))
        .limit(None if most is None else most + 1)
    )
    return session.scalar(select(func.count()).select_from(matching.subquery())) or 0


def start_replay(
    session: Session,
    actor: Actor,
    wanted: EventFilter,
    *,
    rate_per_s: float,
    idempotency_key: str,
    max_items: int = MAX_ITEMS,
    action: Action = Action.REPLAY,
) -> Replay | NotStarted:
    """Freeze the set and let it run, at most once for each ``idempotency_key``.

    The same request again returns the replay that it started the first time. What makes two requests the same is what
    is stored of a replay, its action, filter and rate, so there is no digest to keep beside them.

    Raises:
        ValueError: a filter without a state, or with one that the action does not take.
    """
    if wanted.state not in _STATES[action]:
        raise ValueError(f"a {action} takes events of one state: {', '.join(sorted(_STATES[action]))}")
    keys = {"tenant": actor.tenant, "idempotency_key": idempotency_key}
    filter_ = _stored_filter(wanted)
    begun = {
        "id": uuid7(), "action": action, "actor": actor.key_id, "actor_name": actor.name, "filter": json.dumps(filter_),
        "rate_per_s": rate_per_s, "running": _RUNNING_WORD[action],
    }  # fmt: skip
    job_id = session.scalar(_BEGIN, begun | keys)
    if job_id is None:
        earlier = _replay(session.execute(_REPEATED, keys).one())
        asked = (earlier.action, earlier.filter, earlier.rate_per_s)
        return earlier if asked == (action, filter_, rate_per_s) else NotStarted.KEY_REUSED
    total = _freeze(session, job_id, wanted, actor.tenant, max_items + 1)
    if total > max_items:
        return NotStarted.TOO_MANY_EVENTS
    note(session, actor, f"start_{action}", replay_id=job_id, detail={"filter": filter_, "total": total})
    parameters = {"id": job_id, "total": total, "done": JobState.DONE}
    return _replay(session.execute(_SET_TOTAL, parameters).one())


def find_replay(session: Session, replay_id: UUID, *, tenant: str, action: Action = Action.REPLAY) -> Replay | None:
    """One replay, or discard, of this tenant; or ``None``."""
    row = session.execute(_FIND, {"tenant": tenant, "id": replay_id, "action": action}).one_or_none()
    return None if row is None else _replay(row)


def list_replays(
    session: Session, *, tenant: str, action: Action = Action.REPLAY, state: JobState | None = None, limit: int,
    before_id: UUID | None = None,
) -> ReplayPage:  # fmt: skip
    """A page of this tenant's replays, or discards."""
    word = _RUNNING_WORD[action] if state is JobState.RUNNING else state
    parameters = {"tenant": tenant, "action": action, "state": word, "before_id": before_id, "limit": limit + 1}
    found = [_replay(row) for row in session.execute(_LIST, parameters)]
    return ReplayPage(found[:limit], found[limit - 1].id if len(found) > limit else None)


def cancel(session: Session, actor: Actor, replay_id: UUID, *, action: Action = Action.REPLAY) -> Replay | None:
    """Stop a running replay or discard and return it; one that is over stays as it is. ``None``: there is none such."""
    parameters = {"tenant": actor.tenant, "id": replay_id, "action": action, "cancelled": JobState.CANCELLED}
    row = session.execute(_CANCEL, parameters).one_or_none()
    if row is None:
        return find_replay(session, replay_id, tenant=actor.tenant, action=action)
    detail = {f"{action}ed": row.replayed, "total": row.total}
    note(session, actor, f"cancel_{action}", replay_id=replay_id, detail=detail)
    return _replay(row)


def _freeze(session: Session, job_id: UUID, wanted: EventFilter, tenant: str, limit: int) -> int:
    """Write up to ``limit`` items; returns how many."""
    chosen = (
        select(literal(job_id), Event.id, ProcessingState.version)
        .join(ProcessingState, ProcessingState.event_id == Event.id)
        .where(*conditions(wanted, tenant=tenant))
        .limit(limit)
    )
    columns = [ReplayItem.job_id, ReplayItem.event_id, ReplayItem.version]
    frozen: Any = session.execute(insert(ReplayItem).from_select(columns, chosen))
    return int(frozen.rowcount)


def _stored_filter(filter_: EventFilter) -> dict[str, Any]:
    """The filter as it is stored and shown: only what is set, times as text."""
    values = ((field.name, getattr(filter_, field.name)) for field in fields(filter_))
    present = {name: value for name, value in values if value is not None}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in present.items()}


def _replay(row: Row[Any]) -> Replay:
    named = {field.name: getattr(row, field.name) for field in fields(Replay)}
    action = Action(row.action)
    state = JobState.RUNNING if row.state == _RUNNING_WORD[action] else JobState(row.state)
    return Replay(**named | {"action": action, "state": state})
