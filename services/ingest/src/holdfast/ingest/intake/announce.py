"""Telling the rest of the world what was committed: updates and doorbells, neither of which can hold up an answer."""

from holdfast.domain.update import Update
from holdfast.messaging.broker import DoorbellBroker
from holdfast.messaging.doorbell import ring
from holdfast.messaging.live import Publisher
from holdfast.runtime import logging
from holdfast.runtime.background import Batcher
from holdfast.runtime.breaker import Breaker
from holdfast.runtime.telemetry import Log, Metrics
from holdfast.storage.updates import UpdateKey

__all__ = ["Announcer"]

log = logging.get(__name__)


class Announcer:
    """Publishes and rings after a commit. What Redis does not take is left to relay and redispatch."""

    def __init__(self, publisher: Publisher, broker: DoorbellBroker, published: Batcher[UpdateKey]) -> None:
        self._publisher = publisher
        self._broker = broker
        self._published = published
        self._publishing = Breaker()
        self._ringing = Breaker()

    def publish(self, update: Update) -> None:
        """Show an update live."""
        if self._publishing.call(lambda: self._publisher.publish([update])):
            self._published.add((update.event_id, update.version))
        else:
            Metrics.enqueue_failures.inc()
            log.warning(Log.NOT_PUBLISHED, event_id=str(update.event_id))

    def ring(self, update: Update, traceparent: str | None) -> bool:
        """Ring for an event that is due; whether the doorbell was taken. ``traceparent`` travels with it."""
        is_rung = self._ringing.call(
            lambda: ring(self._broker, [(update.event_id, update.version)], traceparent=traceparent)
        )
        if not is_rung:
            Metrics.enqueue_failures.inc()
            log.warning(Log.NOT_ENQUEUED, event_id=str(update.event_id))
        return is_rung
