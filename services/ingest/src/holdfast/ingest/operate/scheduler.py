"""The use cases of schedules: making, changing and running them, each in a transaction of its own."""

from dataclasses import dataclass

from holdfast.domain.schedule import ScheduleSpec
from holdfast.ingest.connection import reconnecting
from holdfast.messaging.announce import Announcer
from holdfast.runtime.cron import next_tick
from holdfast.storage import schedules
from holdfast.storage.audit import Actor
from holdfast.storage.database import Database
from holdfast.storage.events import Recorded
from holdfast.storage.schedules import NotPut, Put, Schedule, SchedulePage
from holdfast.storage.settling import Moved

__all__ = ["Ran", "Scheduler"]


@dataclass(frozen=True, slots=True)
class Ran:
    """What running a schedule by hand recorded. ``is_enqueued``: this call rang the doorbell."""

    recorded: Recorded
    is_enqueued: bool = False


class Scheduler:
    """Schedules, for holders of keys with the scope ``operate``. ``None`` is: there is none such.

    Args:
        grace_seconds: how long a doorbell has before maintenance rings it again.
    """

    def __init__(self, database: Database, announcer: Announcer, *, grace_seconds: float) -> None:
        self._database = database
        self._announcer = announcer
        self._grace_seconds = grace_seconds

    def list(self, *, tenant: str, limit: int, after_name: str | None) -> SchedulePage:
        """See ``storage.schedules.list_schedules``."""
        return reconnecting(
            lambda: self._database.call(
                schedules.list_schedules, tenant=tenant, limit=limit, after_name=after_name
            )
        )  # fmt: skip

    def find(self, name: str, *, tenant: str) -> Schedule | None:
        """One schedule."""
        return reconnecting(lambda: self._database.call(schedules.find_schedule, name, tenant=tenant))

    def put(self, actor: Actor, spec: ScheduleSpec) -> Put | NotPut:
        """See ``storage.schedules.put_schedule``; the specification has been checked."""
        return reconnecting(
            lambda: self._database.call(schedules.put_schedule, actor, spec, next_tick=next_tick)
        )  # fmt: skip

    def delete(self, actor: Actor, name: str) -> Schedule | None:
        """See ``storage.schedules.delete_schedule``."""
        return reconnecting(lambda: self._database.call(schedules.delete_schedule, actor, name))

    def set_paused(self, actor: Actor, name: str, *, is_paused: bool) -> Schedule | None:
        """See ``storage.schedules.set_paused``.

        Raises:
            InvalidSchedule: it is to go on, and nobody here knows its time zone.
        """
        return reconnecting(
            lambda: self._database.call(
                schedules.set_paused, actor, name, is_paused=is_paused, next_tick=next_tick
            )
        )  # fmt: skip

    def run(self, actor: Actor, name: str, *, idempotency_key: str) -> Ran | None:
        """See ``storage.schedules.run_schedule``; announced once it is committed."""
        told = reconnecting(
            lambda: self._database.call(
                schedules.run_schedule, actor, name, idempotency_key=idempotency_key,
                grace_seconds=self._grace_seconds,
            )
        )  # fmt: skip
        if not told:
            return None
        recorded, moved = told[0], Moved((), [each for each in told if each.is_new])
        self._announcer.publish(moved.all_updates)
        is_enqueued = self._announcer.ring(moved.doorbells)
        return Ran(recorded, is_enqueued and recorded.is_due)
