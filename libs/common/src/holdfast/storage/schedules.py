"""Schedules: making, showing, pausing and deleting them, and noting their ticks. When they tick, others know and say."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Row, delete, func, insert, select, text, update
from sqlalchemy.orm import Session

from holdfast.domain.schedule import MAX_SCHEDULES, Missed, Overlap, ScheduleSpec, event_of
from holdfast.domain.trace import Origin
from holdfast.runtime.ids import uuid7
from holdfast.storage import windows
from holdfast.storage.audit import Actor, note
from holdfast.storage.events import Recorded
from holdfast.storage.schedule_tables import ScheduleRow
from holdfast.storage.statements import statement

__all__ = [
    "IS_SCHEDULE_DUE",
    "Change",
    "NextTick",
    "NotPut",
    "Put",
    "Schedule",
    "SchedulePage",
    "Taken",
    "clock",
    "delete_schedule",
    "due_schedules",
    "find_schedule",
    "list_schedules",
    "note_ticks",
    "postpone_schedule",
    "put_schedule",
    "run_schedule",
    "set_paused",
    "take_due",
]

LONGEST_POSTPONEMENT_SECONDS = 300.0
"""Between two tries of a schedule that keeps failing. It begins with a second and doubles."""

NextTick = Callable[[ScheduleSpec, datetime], datetime | None]
"""The first tick of a schedule after a moment; ``None`` where none comes."""

_SPEC = tuple(field.name for field in fields(ScheduleSpec))

IS_SCHEDULE_DUE = "NOT is_paused AND next_at <= now() AND (retry_at IS NULL OR retry_at <= now())"

_LOCK = text("""
-- One change of a tenant's schedules after the other, so that two at once neither make one name twice nor one too many.
SELECT pg_advisory_xact_lock(hashtextextended('holdfast schedules of ' || :tenant, 0))
""")

_DUE = statement("""
SELECT id FROM schedule WHERE {due} ORDER BY next_at LIMIT :limit
""", due=IS_SCHEDULE_DUE)  # fmt: skip

_TAKE = statement("""
SELECT *, now() AS now,
       EXISTS (SELECT FROM processing_state s WHERE s.event_id = schedule.last_event_id AND s.state IN {OPEN}) AS is_open
FROM schedule WHERE id = :id AND {due}
FOR NO KEY UPDATE SKIP LOCKED
""", due=IS_SCHEDULE_DUE)  # fmt: skip

_NOTE_TICKS = text("""
UPDATE schedule SET next_at = :next_at, last_at = coalesce(CAST(:last_at AS timestamptz), last_at),
                    last_event_id = coalesce(CAST(:last_event_id AS uuid), last_event_id), skipped = skipped + :skipped,
                    failures = 0, last_error = NULL, retry_at = NULL
WHERE id = :id
""")

_POSTPONE = statement("""
-- Skips one that another process has by now: that one tells how its own turn ended.
UPDATE schedule SET failures = failures + 1, last_error = :error,
                    retry_at = now() + make_interval(secs => least(power(2, least(failures, 20)), :longest_seconds))
WHERE id = (SELECT id FROM schedule WHERE id = :id AND {due} FOR NO KEY UPDATE SKIP LOCKED)
RETURNING failures
""", due=IS_SCHEDULE_DUE)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule as it is stored. ``created_by``: a key's id, or who else made it, as ``audit.Actor`` has it.

    ``next_at`` is its next tick, paused or not. ``last_at`` is the tick of its last event, ``last_event_id``. ``skipped``
    ticks had none. ``failures`` turns in a row have ended with an exception, the last with the type ``last_error``.
    """

    id: UUID
    tenant: str
    spec: ScheduleSpec
    is_paused: bool
    is_declared: bool
    created_by: str
    created_at: datetime
    next_at: datetime | None
    last_at: datetime | None
    last_event_id: UUID | None
    skipped: int
    failures: int
    last_error: str | None


@dataclass(frozen=True, slots=True)
class SchedulePage:
    """Schedules by name. ``next_name``: the next page's ``after_name``; ``None`` on the last page."""

    items: list[Schedule]
    next_name: str | None


class Change(StrEnum):
    """What putting a schedule did."""

    CREATED = "created"
    CHANGED = "changed"
    NONE = "none"
    """It was there as it was asked for."""


class NotPut(StrEnum):
    """Why a schedule was not made or replaced."""

    TOO_MANY = "too_many"
    """The tenant has as many as it may have."""

    DECLARED = "declared"
    """Handlers declare it: the next start of a processor would undo the change."""


@dataclass(frozen=True, slots=True)
class Put:
    """A schedule as it is now, and what was done for that."""

    schedule: Schedule
    change: Change


@dataclass(frozen=True, slots=True)
class Taken:
    """A schedule that is due, locked until the transaction ends.

    ``now`` is PostgreSQL's clock. ``is_open``: the event of its last tick is neither done nor given up.
    """

    schedule: Schedule
    planned: datetime
    now: datetime
    is_open: bool


def put_schedule(
    session: Session, actor: Actor, spec: ScheduleSpec, *, next_tick: NextTick, is_declared: bool = False,
    most: int = MAX_SCHEDULES,
) -> Put | NotPut:  # fmt: skip
    """Make a schedule, or replace what the one of this name is to do; one that is paused stays so. A change is audited.

    It ticks at its next time from now on PostgreSQL's clock; where ``cron`` and ``timezone`` stay, so does its next tick.
    """
    session.execute(_LOCK, {"tenant": actor.tenant})
    known = find_schedule(session, spec.name, tenant=actor.tenant, is_locked=True)
    if known is None:
        return _create(session, actor, spec, next_tick, is_declared, most)
    if known.is_declared and not is_declared:
        return NotPut.DECLARED
    if known.spec == spec and known.is_declared == is_declared:
        return Put(known, Change.NONE)
    values: dict[str, Any] = {**_columns(spec), "is_declared": is_declared}
    if (known.spec.cron, known.spec.timezone) != (spec.cron, spec.timezone):
        values["next_at"] = next_tick(spec, clock(session))
    changed = _update(session, known, values | _AS_GOOD_AS_NEW)
    _note(session, actor, "change_schedule", changed)
    return Put(changed, Change.CHANGED)


def find_schedule(session: Session, name: str, *, tenant: str, is_locked: bool = False) -> Schedule | None:
    """One schedule of this tenant, or ``None``. ``is_locked``: until the transaction ends nobody else changes it."""
    wanted = select(ScheduleRow.__table__).where(ScheduleRow.tenant == tenant, ScheduleRow.name == name)
    row = session.execute(wanted.with_for_update() if is_locked else wanted).one_or_none()
    return None if row is None else _schedule(row)


def list_schedules(session: Session, *, tenant: str, limit: int, after_name: str | None = None) -> SchedulePage:
    """A page of this tenant's schedules, by name."""
    wanted = select(ScheduleRow.__table__).where(ScheduleRow.tenant == tenant)
    if after_name is not None:
        wanted = wanted.where(ScheduleRow.name > after_name)
    found = [_schedule(row) for row in session.execute(wanted.order_by(ScheduleRow.name).limit(limit + 1))]
    return SchedulePage(found[:limit], found[limit - 1].spec.name if len(found) > limit else None)


def delete_schedule(session: Session, actor: Actor, name: str) -> Schedule | None:
    """Forget a schedule and return what it was; ``None``: there is none such. Its events stay. The deletion is audited."""
    known = find_schedule(session, name, tenant=actor.tenant, is_locked=True)
    if known is not None:
        session.execute(delete(ScheduleRow).where(ScheduleRow.id == known.id))
        _note(session, actor, "delete_schedule", known)
    return known


def set_paused(
    session: Session, actor: Actor, name: str, *, is_paused: bool, next_tick: NextTick
) -> Schedule | None:  # fmt: skip
    """Let a schedule rest, or go on with its next tick from now; ``None``: there is none such. A change is audited.

    Ticks that came while it rested are not made up for, whatever it does about missed ones: a pause is meant.
    """
    known = find_schedule(session, name, tenant=actor.tenant, is_locked=True)
    if known is None or known.is_paused == is_paused:
        return known
    values: dict[str, Any] = {"is_paused": is_paused}
    if not is_paused:
        values |= {"next_at": next_tick(known.spec, clock(session)), **_AS_GOOD_AS_NEW}
    changed = _update(session, known, values)
    _note(session, actor, "pause_schedule" if is_paused else "resume_schedule", changed)
    return changed


def run_schedule(
    session: Session, actor: Actor, name: str, *, idempotency_key: str, grace_seconds: float
) -> list[Recorded]:
    """Record the event of a schedule now, paused or not; nothing: there is none such. It is audited.

    Once for each ``idempotency_key``, which becomes part of the event's identity. It is no tick: the schedule goes on as if
    nothing had been; but its window is that of the ticks' events. ``grace_seconds`` as for ``events.record``.

    Returns:
        What became of the event, and behind it those that it replaced.
    """
    known = find_schedule(session, name, tenant=actor.tenant)
    if known is None:
        return []
    event = event_of(
        known.spec, clock(session), tenant=actor.tenant, event_id=uuid7(), ce_id=f"run:{idempotency_key}"
    )  # fmt: skip
    kept = windows.record(session, [replace(event, origin=Origin(actor.request_id))], grace_seconds=grace_seconds)
    if kept.recorded[0].is_new:
        note(session, actor, "run_schedule", event_id=event.id, detail={"schedule": name})
    return [*kept.recorded, *windows.supersede(session, kept.superseding)]


def due_schedules(session: Session, *, limit: int) -> list[UUID]:
    """Schedules with a tick that has come and is not decided, the longest waiting first."""
    return list(session.scalars(_DUE, {"limit": limit}))


def take_due(session: Session, schedule_id: UUID) -> Taken | None:
    """Lock one that is due; ``None`` where another process has it, or has done it."""
    row = session.execute(_TAKE, {"id": schedule_id}).one_or_none()
    return None if row is None else Taken(_schedule(row), row.next_at, row.now, row.is_open)


def note_ticks(
    session: Session, schedule_id: UUID, *, next_at: datetime | None, last: tuple[datetime, UUID] | None, skipped: int
) -> None:
    """Move a schedule on: to be called in the transaction that records its events.

    Args:
        last: the latest tick that has an event, and that event.
        skipped: how many have none.
    """
    last_at, last_event_id = last or (None, None)
    session.execute(_NOTE_TICKS, {
        "id": schedule_id, "next_at": next_at, "last_at": last_at, "last_event_id": last_event_id, "skipped": skipped,
    })  # fmt: skip


def postpone_schedule(session: Session, schedule_id: UUID, *, error: str) -> int | None:
    """Note that a turn failed and let the schedule wait: 1 s, 2 s, 4 s, up to :data:`LONGEST_POSTPONEMENT_SECONDS`.

    Args:
        error: the exception's type; its text may quote an event.

    Returns:
        How many turns in a row have failed, or ``None`` where another process has the schedule or it is due no more.
    """
    parameters = {"id": schedule_id, "error": error, "longest_seconds": LONGEST_POSTPONEMENT_SECONDS}
    failures: int | None = session.scalar(_POSTPONE, parameters)
    return failures


def clock(session: Session) -> datetime:
    """PostgreSQL's, at the begin of the transaction."""
    now: Any = session.scalar(select(func.now()))
    return cast("datetime", now)


_AS_GOOD_AS_NEW = {"failures": 0, "last_error": None, "retry_at": None}


def _create(
    session: Session, actor: Actor, spec: ScheduleSpec, next_tick: NextTick, is_declared: bool, most: int
) -> Put | NotPut:
    count = select(func.count()).select_from(ScheduleRow).where(ScheduleRow.tenant == actor.tenant)
    if (session.scalar(count) or 0) >= most:
        return NotPut.TOO_MANY
    values = {
        "id": uuid7(), "tenant": actor.tenant, **_columns(spec), "is_declared": is_declared, "created_by": actor.key_id,
        "next_at": next_tick(spec, clock(session)),
    }  # fmt: skip
    made = insert(ScheduleRow).values(values).returning(*ScheduleRow.__table__.columns)
    created = _schedule(session.execute(made).one())
    _note(session, actor, "create_schedule", created)
    return Put(created, Change.CREATED)


def _update(session: Session, known: Schedule, values: dict[str, Any]) -> Schedule:
    changed = update(ScheduleRow).where(ScheduleRow.id == known.id).values(values)
    return _schedule(session.execute(changed.returning(*ScheduleRow.__table__.columns)).one())


def _note(session: Session, actor: Actor, action: str, schedule: Schedule) -> None:
    spec = schedule.spec
    detail = {"schedule": spec.name, "cron": spec.cron, "timezone": spec.timezone, "type": spec.type}
    note(session, actor, action, detail=detail)


def _columns(spec: ScheduleSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in _SPEC} | {"extensions": dict(spec.extensions)}


def _schedule(row: Row[Any]) -> Schedule:
    named = {field.name: getattr(row, field.name) for field in fields(Schedule) if field.name != "spec"}
    return Schedule(**named, spec=_spec(row))


def _spec(row: Row[Any]) -> ScheduleSpec:
    return ScheduleSpec(**{name: getattr(row, name) for name in _SPEC} | {
        "missed": Missed(row.missed), "overlap": Overlap(row.overlap),
        "data": None if row.data is None else bytes(row.data),
    })  # fmt: skip
