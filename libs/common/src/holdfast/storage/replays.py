"""Replays by filter: a set of events, frozen when it is asked for and sent round again at a bounded rate.

The set is kept as items, each with the version that its event had then. The version is the fence: an event that somebody
has moved since is skipped, so none goes round twice however often it is asked for. Here sets are made, shown and stopped;
``storage.replay_batches`` works them off.
"""

import json
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, insert, literal, select, text
from sqlalchemy.orm import Session

from holdfast.runtime.ids import uuid7
from holdfast.storage.audit import Actor, note
from holdfast.storage.filters import EventFilter, conditions
from holdfast.storage.operate import REPLAYABLE
from holdfast.storage.tables import Event, ProcessingState, ReplayItem

__all__ = [
    "MAX_ITEMS",
    "MAX_RATE_PER_S",
    "MIN_RATE_PER_S",
    "JobState",
    "NotStarted",
    "Replay",
    "cancel",
    "count_matching",
    "find_replay",
    "start_replay",
]

MAX_ITEMS = 100_000
"""Events in one replay. Freezing them is one statement within a request, and so many take it about a second."""

MIN_RATE_PER_S = 0.01
"""An event every 100 s. A rate of next to nothing is a replay that never ends; cancelling it is clearer."""

MAX_RATE_PER_S = 1000.0

_BEGIN = text("""
INSERT INTO replay_job (id, tenant, idempotency_key, created_by, filter, rate_per_s, total, state)
VALUES (:id, :tenant, :idempotency_key, :actor, CAST(:filter AS jsonb), :rate_per_s, 0, :running)
ON CONFLICT ON CONSTRAINT uq_replay_job_request DO NOTHING
RETURNING id
""")

_SET_TOTAL = text("""
UPDATE replay_job SET total = :total, state = CASE WHEN :total = 0 THEN :done ELSE :running END,
                      finished_at = CASE WHEN :total = 0 THEN now() END
WHERE id = :id
RETURNING *
""")

_REPEATED = text("SELECT * FROM replay_job WHERE tenant = :tenant AND idempotency_key = :idempotency_key")

_FIND = text("SELECT * FROM replay_job WHERE tenant = :tenant AND id = :id")

_CANCEL = text("""
-- Waits for a batch under way: once this is committed no further event is replayed.
UPDATE replay_job SET state = :cancelled, finished_at = now()
WHERE tenant = :tenant AND id = :id AND state = :running
RETURNING *
""")


class NotStarted(StrEnum):
    """Why a replay was not started. Roll back: nothing of it may stay."""

    TOO_MANY_EVENTS = "too_many_events"
    """The filter matches more events than one replay takes."""

    KEY_REUSED = "key_reused"
    """The idempotency key belongs to a replay with another filter or another rate."""


class JobState(StrEnum):
    """Where a replay stands. Stored as its text value."""

    RUNNING = "running"
    """Maintenance takes its items, at the rate that was asked for."""

    DONE = "done"
    """Every item was replayed or skipped."""

    CANCELLED = "cancelled"
    """An operator stopped it. What was replayed by then stays so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A replay by filter, and how far it is. ``skipped``: events that had moved on since the set was frozen.

    ``failures`` turns in a row have ended with an exception, the last one with the type ``last_error``; it is tried again.
    """

    id: UUID
    created_by: str
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


def count_matching(session: Session, wanted: EventFilter, *, tenant: str) -> int:
    """How many events a replay that was started now would have."""
    statement = select(func.count()).select_from(Event).join(ProcessingState, ProcessingState.event_id == Event.id)
    return session.scalar(statement.where(*conditions(wanted, tenant=tenant))) or 0


def start_replay(
    session: Session,
    actor: Actor,
    wanted: EventFilter,
    *,
    rate_per_s: float,
    idempotency_key: str,
    max_items: int = MAX_ITEMS,
) -> Replay | NotStarted:
    """Freeze the set and let it run, at most once for each ``idempotency_key``.

    The same request again returns the replay that it started the first time. What makes two requests the same is what
    is stored of a replay, its filter and its rate, so there is no digest to keep beside them.

    Raises:
        ValueError: a filter without a state, or with one that is not replayable.
    """
    if wanted.state not in REPLAYABLE:
        raise ValueError(f"a replay takes events of one state: {', '.join(sorted(REPLAYABLE))}")
    keys = {"tenant": actor.tenant, "idempotency_key": idempotency_key}
    filter_ = _stored_filter(wanted)
    begun = {"id": uuid7(), "actor": actor.key_id, "filter": json.dumps(filter_), "rate_per_s": rate_per_s, **keys}
    job_id = session.scalar(_BEGIN, begun | {"running": JobState.RUNNING})
    if job_id is None:
        earlier = _replay(session.execute(_REPEATED, keys).one())
        return earlier if (earlier.filter, earlier.rate_per_s) == (filter_, rate_per_s) else NotStarted.KEY_REUSED
    total = _freeze(session, job_id, wanted, actor.tenant, max_items + 1)
    if total > max_items:
        return NotStarted.TOO_MANY_EVENTS
    note(session, actor, "start_replay", replay_id=job_id, detail={"filter": filter_, "total": total})
    parameters = {"id": job_id, "total": total, "running": JobState.RUNNING, "done": JobState.DONE}
    return _replay(session.execute(_SET_TOTAL, parameters).one())


def find_replay(session: Session, replay_id: UUID, *, tenant: str) -> Replay | None:
    """One replay of this tenant, or ``None``."""
    row = session.execute(_FIND, {"tenant": tenant, "id": replay_id}).one_or_none()
    return None if row is None else _replay(row)


def cancel(session: Session, actor: Actor, replay_id: UUID) -> Replay | None:
    """Stop a running replay and return it; one that is over stays as it is. ``None``: there is no such replay."""
    states = {"cancelled": JobState.CANCELLED, "running": JobState.RUNNING}
    row = session.execute(_CANCEL, {"tenant": actor.tenant, "id": replay_id, **states}).one_or_none()
    if row is None:
        return find_replay(session, replay_id, tenant=actor.tenant)
    note(session, actor, "cancel_replay", replay_id=replay_id, detail={"replayed": row.replayed, "total": row.total})
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
    return Replay(**named | {"state": JobState(row.state)})
