"""The use case: record an event, and only then tell the rest of the world."""

from dataclasses import dataclass

from holdfast.domain.event import NewEvent
from holdfast.domain.update import Update
from holdfast.ingest.breaker import Breaker
from holdfast.ingest.connection import reconnecting
from holdfast.messaging.broker import DoorbellBroker
from holdfast.messaging.doorbell import ring
from holdfast.messaging.live import Publisher
from holdfast.runtime import logging
from holdfast.runtime.background import Batcher
from holdfast.runtime.telemetry import Log, Metrics
from holdfast.storage import events
from holdfast.storage.database import Database
from holdfast.storage.events import Recorded
from holdfast.storage.updates import UpdateKey

__all__ = ["Outcome", "Recorder"]

log = logging.get(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to answer. ``is_enqueued``: this call rang the doorbell; otherwise the event is found by other means."""

    recorded: Recorded
    is_enqueued: bool


class Recorder:
    """Records events durably, then publishes and rings, neither of which can undo or hold up the answer."""

    def __init__(
        self,
        database: Database,
        publisher: Publisher,
        broker: DoorbellBroker,
        published: Batcher[UpdateKey],
        *,
        grace_seconds: float,
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._broker = broker
        self._published = published
        self._grace_seconds = grace_seconds
        self._publishing = Breaker()
        self._ringing = Breaker()

    def record(self, event: NewEvent, *, traceparent: str | None = None) -> Outcome:
        """Record one event. ``traceparent`` is the request's own; it travels with the doorbell.

        Raises:
            DatabaseUnavailable: nothing was recorded, as far as is known; sending again is safe.
        """
        recorded = reconnecting(lambda: self._commit(event))
        if recorded.is_duplicate or recorded.is_conflict:
            return Outcome(recorded, is_enqueued=False)
        self._publish(recorded.update)
        return Outcome(recorded, self._ring(recorded.update, traceparent))

    def _commit(self, event: NewEvent) -> Recorded:
        with self._database.transaction() as session:
            return events.record(session, [event], grace_seconds=self._grace_seconds)[0]

    def _publish(self, update: Update) -> None:
        if self._publishing.call(lambda: self._publisher.publish([update])):
            self._published.add((update.event_id, update.version))
        else:
            Metrics.enqueue_failures.inc()
            log.warning(Log.NOT_PUBLISHED, event_id=str(update.event_id))

    def _ring(self, update: Update, traceparent: str | None) -> bool:
        is_rung = self._ringing.call(
            lambda: ring(self._broker, [(update.event_id, update.version)], traceparent=traceparent)
        )
        if not is_rung:
            Metrics.enqueue_failures.inc()
            log.warning(Log.NOT_ENQUEUED, event_id=str(update.event_id))
        return is_rung
