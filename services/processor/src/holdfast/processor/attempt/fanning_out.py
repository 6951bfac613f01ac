"""Events for further handlers of a type (``also=True``), made before the event's own handler begins."""

from collections.abc import Iterable

from holdfast.domain.attributes import HANDLER
from holdfast.domain.event import Lease
from holdfast.messaging.announce import Announcer
from holdfast.processor.handlers.registry import Handlers
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log
from holdfast.storage.database import Database
from holdfast.storage.fan_out import fan_out
from holdfast.storage.settling import Moved

__all__ = ["FanOut"]

log = logging.get(__name__)


class FanOut:
    """Makes them, from any number of threads.

    Args:
        database: whose commits are durable: what an event was made for is not to be lost once it has begun.
    """

    def __init__(self, handlers: Handlers, database: Database, announcer: Announcer) -> None:
        self._handlers = handlers
        self._database = database
        self._announcer = announcer

    def make(self, leases: Iterable[Lease]) -> None:
        """Make an event for each further handler of claimed events. Again is as well as once.

        An event that was itself made for one handler has no others. Neither has a copy: what was made of the original is
        there, and can be repeated by itself.

        Raises:
            DatabaseUnavailable, StatementTooSlow: nothing is known of what was made; the handlers are not to begin.
        """
        if not self._handlers.has_also:
            return
        wanted = {lease.event.id: (lease, names) for lease in leases if (names := self._names(lease))}
        if not wanted:
            return
        made = Moved((), self._database.call(fan_out, wanted))
        if made.emitted:
            self._announcer.publish(made.all_updates)
            self._announcer.ring(made.doorbells)
            log.info(Log.FANNED_OUT, count=len(made.emitted), **logging.about_events(list(wanted)))

    def _names(self, lease: Lease) -> list[str]:
        event = lease.event
        if event.replay_of is not None or HANDLER in event.extensions:
            return []
        return [each.name for each in self._handlers.also(event.type)]
