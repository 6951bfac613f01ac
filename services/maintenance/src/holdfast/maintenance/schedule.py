"""Record the events of schedules whose tick has come."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from holdfast.domain.errors import DatabaseUnavailable
from holdfast.domain.schedule import event_of, turn_of, without_overlap
from holdfast.messaging.announce import Announcer
from holdfast.runtime import logging
from holdfast.runtime.cron import read_cron
from holdfast.runtime.ids import uuid7
from holdfast.runtime.telemetry import Log, Metrics
from holdfast.storage import Session, schedules, windows
from holdfast.storage.database import Database
from holdfast.storage.events import Recorded
from holdfast.storage.settling import Moved

__all__ = ["Ticked", "export_outcomes", "record_ticks", "tick"]

log = logging.get(__name__)

OUTCOMES = ("recorded", "known", "unique", "missed", "overlap", "failed")


@dataclass(frozen=True, slots=True)
class Ticked:
    """What one turn did for a schedule.

    Attributes:
        ticks: those that have an event, with what recording it said; oldest first.
        replaced: events that those of these ticks have replaced, of ticks too.
        repeated: how many ticks have none, because theirs is a duplicate by its key.
        missed: how many have none, because nobody looked in time.
        overlapping: how many have none, because the event of the tick before is still open.
        now: PostgreSQL's clock.
    """

    ticks: Sequence[tuple[datetime, Recorded]]
    replaced: Sequence[Recorded]
    repeated: int
    missed: int
    overlapping: int
    now: datetime


def export_outcomes() -> None:
    """Export what can become of ticks as zero: of a series that begins with its first one Prometheus sees no increase."""
    for outcome in OUTCOMES:
        Metrics.schedule_ticks.labels(outcome)


def record_ticks(database: Database, announcer: Announcer, *, limit: int, grace_seconds: float) -> int:
    """Give up to ``limit`` due schedules their turn; returns how many had it.

    One whose row another process has locked is left to it. Updates and doorbells follow the commit; those that Redis does
    not take, or that die with this process, are left to relay and redispatch. A schedule whose turn fails waits, ever
    longer, and the others go on.

    Args:
        grace_seconds: as for ``events.record``.

    Raises:
        DatabaseUnavailable: what was not committed is done again, whole, and nothing twice.
    """

    def work(schedule_id: UUID) -> int:
        ticked = database.call(tick, schedule_id, grace_seconds=grace_seconds)
        if ticked is None:
            return 0
        _tell(schedule_id, ticked, announcer)
        return 1

    due = database.call(schedules.due_schedules, limit=limit)
    return sum(_isolated(work, schedule_id, database) for schedule_id in due)


def tick(session: Session, schedule_id: UUID, *, grace_seconds: float) -> Ticked | None:
    """Record the events of a schedule's ticks and move it on, both or neither; ``None``: it is not due, or another's.

    The identity of a tick's event is the tick. So whatever becomes of this transaction, and however many processes are at
    the same schedule, no tick has two events.

    Raises:
        InvalidSchedule: this machine does not know its time zone.
    """
    taken = schedules.take_due(session, schedule_id)
    if taken is None:
        return None
    schedule, spec = taken.schedule, taken.schedule.spec
    cron = read_cron(spec.cron, spec.timezone)
    turn = turn_of(cron.ticks_after, planned=taken.planned, now=taken.now, missed=spec.missed)
    due = without_overlap(turn.due, spec.overlap, is_open=taken.is_open)
    events = [event_of(spec, each, tenant=schedule.tenant, event_id=uuid7()) for each in due]
    kept = windows.record(session, events, grace_seconds=grace_seconds) if events else windows.Kept([])
    replaced = windows.supersede(session, kept.superseding)
    ticks = [(each, one) for each, one in zip(due, kept.recorded, strict=True) if one.unique_until is None]
    repeated, overlapping = len(due) - len(ticks), len(turn.due) - len(due)
    last = (ticks[-1][0], ticks[-1][1].update.event_id) if ticks else None
    skipped = turn.passed + overlapping + repeated
    schedules.note_ticks(session, schedule_id, next_at=turn.next_at, last=last, skipped=skipped)
    return Ticked(ticks, replaced, repeated, turn.passed, overlapping, taken.now)


def _tell(schedule_id: UUID, ticked: Ticked, announcer: Announcer) -> None:
    new = [(each, recorded) for each, recorded in ticked.ticks if recorded.is_new]
    Metrics.schedule_ticks.labels("recorded").inc(len(new))
    Metrics.schedule_ticks.labels("known").inc(len(ticked.ticks) - len(new))
    Metrics.schedule_ticks.labels("unique").inc(ticked.repeated)
    Metrics.schedule_ticks.labels("missed").inc(ticked.missed)
    Metrics.schedule_ticks.labels("overlap").inc(ticked.overlapping)
    for each, _ in new:
        Metrics.schedule_lateness_seconds.observe((ticked.now - each).total_seconds())
    if ticked.missed:
        log.warning(Log.TICKS_MISSED, schedule_id=str(schedule_id), count=ticked.missed)
    moved = Moved((), [*(recorded for _, recorded in new), *ticked.replaced])
    announcer.ring(moved.doorbells)
    announcer.publish(moved.all_updates)


def _isolated(work: Callable[[UUID], int], schedule_id: UUID, database: Database) -> int:
    """An exception is the schedule's own; without a database no schedule can go on."""
    try:
        return work(schedule_id)
    except DatabaseUnavailable:
        raise
    except Exception as exc:  # noqa: BLE001 (whatever one schedule does to its turn, the others have theirs)
        _postpone(schedule_id, exc, database)
        return 0


def _postpone(schedule_id: UUID, exc: Exception, database: Database) -> None:
    """Let the schedule wait. Only its first failure in a row is logged: it may fail for days."""
    failures = database.call(schedules.postpone_schedule, schedule_id, error=type(exc).__name__)
    Metrics.schedule_ticks.labels("failed").inc()
    write = log.error if failures == 1 else log.debug
    write(Log.SCHEDULE_FAILED, schedule_id=str(schedule_id), failures=failures, exc_info=exc)
