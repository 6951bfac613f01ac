"""Schedulers at one schedule while years pass: each tick has one event, whoever records it and whoever crashes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import text
from tests.interleaving.actors import Actor, Place, Violation
from tests.interleaving.world import Rows, Seen, World

from holdfast.domain.schedule import Missed, ScheduleSpec, event_of
from holdfast.maintenance.schedule import tick
from holdfast.runtime.cron import next_tick, read_cron
from holdfast.runtime.ids import uuid7
from holdfast.storage import Session, audit, events, schedules
from holdfast.storage.database import Database

__all__ = ["NO_IDENTITY", "Hasty", "Scheduled", "Scheduler"]

YEARS = 2
"""That pass, one at a time, each at any moment."""

CRON = f"0 0 1 {(datetime.now(UTC).month + 5) % 12 + 1} *"
"""Once a year, and in half a year next: it does not tick by itself meanwhile."""

SPEC = ScheduleSpec(name="yearly", cron=CRON, type="x", missed=Missed.ALL)

_CLOCK = """
DROP SCHEMA IF EXISTS simulated CASCADE;
CREATE SCHEMA simulated;
CREATE TABLE simulated.clock (years int NOT NULL);
INSERT INTO simulated.clock VALUES (0);
CREATE FUNCTION simulated.now() RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT pg_catalog.now() + make_interval(years => years) FROM simulated.clock
$$;
CREATE FUNCTION simulated.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT pg_catalog.statement_timestamp() + make_interval(years => years) FROM simulated.clock
$$;
DO $$
BEGIN
    EXECUTE 'ALTER DATABASE ' || quote_ident(current_database()) || ' SET search_path = simulated, pg_catalog, public';
END $$;
"""
"""What PostgreSQL answers to those that ask for the time: its own, and the years that have passed."""

NO_IDENTITY = """
CREATE OR REPLACE FUNCTION lose_identity() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.ce_id := gen_random_uuid();
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER lose_identity BEFORE INSERT ON event
    FOR EACH ROW WHEN (starts_with(NEW.source, '/holdfast/schedules/')) EXECUTE FUNCTION lose_identity()
"""
"""No event of a tick has the tick as its identity."""


class Scheduled(World):
    """A schedule whose first tick has come. With every year another one does."""

    further: ClassVar[Sequence[str]] = ("schedule", "simulated.clock")

    def __init__(self, database: Database, *, event_count: int = 0, subject: str | None = None) -> None:
        with database.transaction() as session:
            session.connection().exec_driver_sql(_CLOCK)
        database.engine.dispose()  # who connects from now on asks that clock
        super().__init__(database, event_count=event_count, subject=subject)

    def fill(self, event_count: int, subject: str | None) -> list[UUID]:
        del event_count, subject
        self.execute("DELETE FROM schedule")
        self._first = _ticks(datetime.now(UTC) - timedelta(days=400), datetime.now(UTC))[-1]
        with self.database.transaction() as session:
            schedules.put_schedule(session, audit.Actor("t", "ann"), SPEC, next_tick=lambda *_: self._first)
        return []

    def key(self, rows: Rows) -> tuple[Any, ...]:
        [schedule], [clock] = rows["schedule"], rows["simulated.clock"]
        return clock["years"], schedule["next_at"], schedule["last_at"], *sorted(row["time"] for row in rows["event"])

    def check(self, seen: Seen) -> None:
        super().check(seen)
        [schedule] = seen.rows["schedule"]
        recorded = Counter(datetime.fromisoformat(event["time"]) for event in seen.rows["event"])
        for at, count in recorded.items():
            if count > 1:
                raise Violation(f"the tick of {at} has {count} events")
        decided = _ticks(self._first - timedelta(days=1), datetime.fromisoformat(schedule["next_at"]))[:-1]
        if not set(decided) <= set(recorded) or schedule["skipped"]:
            raise Violation(f"of {len(decided)} ticks that are over {len(recorded)} have an event")
        if len(seen.rows["processing_state"]) != len(seen.rows["event"]):
            raise Violation("an event was recorded that nobody will process")

    def is_time_awaited(self, seen: Seen) -> bool:
        [clock] = seen.rows["simulated.clock"]
        return bool(clock["years"] < YEARS)

    def pass_time(self) -> None:
        with self.database.transaction() as session:
            session.execute(text("UPDATE simulated.clock SET years = least(years + 1, :most)"), {"most": YEARS})

    def recover(self) -> Seen:
        """The years that are left, a scheduler that lives, and then what follows any event."""
        for _ in range(YEARS):
            self.pass_time()
        with self.database.transaction() as session:
            for schedule_id in schedules.due_schedules(session, limit=1):
                tick(session, schedule_id, grace_seconds=0)
        seen = super().recover()
        if len(seen.rows["event"]) != 1 + YEARS:
            raise Violation(f"{len(seen.rows['event'])} ticks of {1 + YEARS} years have an event")
        return seen


class Scheduler(Actor):
    """As maintenance looks at schedules. A look that finds nothing costs no round.

    From the moment on at which a turn has locked the schedule it touches nothing that anybody else could see or lock, so it
    is one step.
    """

    def rest(self, session: Session, place: Place, _: int) -> Place:
        due = schedules.due_schedules(session, limit=1)
        session.commit()
        return replace(place, step="turn", rounds=place.rounds - 1) if due else place

    def turn(self, session: Session, place: Place, _: int) -> Place:
        ticked = tick(session, _schedule_id(session), grace_seconds=0)
        if ticked is None:
            return replace(place, step="give_up")
        wrote = " ".join(at.isoformat() for at, _ in ticked.ticks)
        return replace(place, step="commit", wrote=wrote)

    def give_up(self, session: Session, place: Place, _: int) -> Place:
        session.rollback()
        return self._rested(place)

    def commit(self, session: Session, place: Place, _: int) -> Place:
        session.commit()
        return self._rested(place)


class Hasty(Scheduler):
    """Moves the schedule on first, and records its events in another transaction."""

    def turn(self, session: Session, place: Place, _: int) -> Place:
        taken = schedules.take_due(session, _schedule_id(session))
        if taken is None:
            return replace(place, step="give_up")
        next_at = next_tick(SPEC, taken.now)
        schedules.note_ticks(session, taken.schedule.id, next_at=next_at, last=None, skipped=0)
        due = [at.isoformat() for at in _ticks(taken.planned - timedelta(days=1), taken.now)]
        return replace(place, step="move_on", wrote=" ".join(due))

    def move_on(self, session: Session, place: Place, _: int) -> Place:
        session.commit()
        return replace(place, step="record")

    def record(self, session: Session, place: Place, _: int) -> Place:
        due = [datetime.fromisoformat(at) for at in place.wrote.split()]
        events.record(session, [event_of(SPEC, at, tenant="t", event_id=uuid7()) for at in due], grace_seconds=0)
        return replace(place, step="commit")


def _ticks(after: datetime, until: datetime) -> list[datetime]:
    return list(takewhile(lambda at: at <= until, read_cron(SPEC.cron, SPEC.timezone).ticks_after(after)))


def _schedule_id(session: Session) -> UUID:
    schedule_id: UUID = session.execute(text("SELECT id FROM schedule")).scalar_one()
    return schedule_id
