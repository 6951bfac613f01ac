"""The use case: record an event, and only then tell the rest of the world."""

from dataclasses import dataclass

from holdfast.domain.event import Doorbell, NewEvent
from holdfast.ingest.connection import reconnecting
from holdfast.messaging.announce import Announcer
from holdfast.storage import events
from holdfast.storage.database import Database
from holdfast.storage.events import Recorded

__all__ = ["Outcome", "Recorder"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to answer. ``is_enqueued``: this call rang the doorbell; otherwise the event is found by other means."""

    recorded: Recorded
    is_enqueued: bool


class Recorder:
    """Records events durably, then publishes and rings, neither of which can undo or hold up the answer."""

    def __init__(self, database: Database, announcer: Announcer, *, grace_seconds: float) -> None:
        self._database = database
        self._announcer = announcer
        self._grace_seconds = grace_seconds

    def record(self, event: NewEvent) -> Outcome:
        """Record one event.

        Raises:
            DatabaseUnavailable: nothing was recorded, as far as is known; sending again is safe.
        """
        recorded = reconnecting(lambda: self._commit(event))
        if recorded.is_duplicate or recorded.is_conflict:
            return Outcome(recorded, is_enqueued=False)
        update = recorded.update
        self._announcer.publish([update])
        return Outcome(recorded, self._announcer.ring([Doorbell(update.event_id, update.version)]))

    def _commit(self, event: NewEvent) -> Recorded:
        with self._database.transaction() as session:
            return events.record(session, [event], grace_seconds=self._grace_seconds)[0]
