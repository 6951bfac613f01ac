"""Telling everybody else what was committed: updates for live clients, doorbells for processors.

The one place where ingest, processor and maintenance do so. Neither can fail or hold up what was committed: an update that
Redis did not take is left to the relay, a doorbell to polling and redispatch.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from uuid import UUID

from holdfast.domain.event import Doorbell
from holdfast.domain.update import Update
from holdfast.messaging.bell import Bell
from holdfast.messaging.live import Publisher
from holdfast.runtime import logging
from holdfast.runtime.breaker import Breaker
from holdfast.runtime.group_commit import GroupCommit
from holdfast.runtime.telemetry import Log, Metrics

__all__ = ["Announcer"]

log = logging.get(__name__)

MOST_TOGETHER = 200
"""Updates of one call: Redis does nothing else meanwhile."""


class Announcer:
    """Publishes and rings after a commit, each behind a circuit breaker."""

    def __init__(self, publisher: Publisher, bell: Bell) -> None:
        self._publisher = publisher
        self._bell = bell
        self._publishing = _Channel(failed=Log.NOT_PUBLISHED, back=Log.LIVE_WINDOW_BACK)
        self._ringing = _Channel(failed=Log.NOT_ENQUEUED, back=Log.BROKER_BACK)
        self._group: GroupCommit[Sequence[Update], bool, bool] = GroupCommit(
            self._publish_together, lambda published: published, weigh=len, most=MOST_TOGETHER
        )

    def publish(self, updates: Sequence[Update]) -> bool:
        """Show updates live, in the given order; whether Redis took them. Publishing one again is invisible to clients.

        Threads that publish at the same moment share a call.
        """
        return self._group.add(updates) if updates else True

    def publish_recovered(self, recovered: Sequence[Update]) -> None:
        """Count, log and show the events whose expired leases were taken away."""
        if not recovered:
            return
        by_state = Counter(update.state.value for update in recovered)
        for state, count in by_state.items():
            Metrics.recovered.labels(state).inc(count)
        log.warning(Log.RECOVERED, **by_state, **logging.about_events([update.event_id for update in recovered]))
        self.publish(recovered)

    def publish_progress(self, update: Update) -> bool:
        """Show progress live; whether Redis took it. It is in no outbox: nobody repeats it."""
        return self._publishing.try_once(lambda: self._publisher.publish([update]))

    def ring(self, doorbells: Sequence[Doorbell]) -> bool:
        """Ring for events that are due; whether the broker took all of them."""
        if not doorbells:
            return True
        return self._ringing.send(lambda: self._bell.ring(doorbells), [each.event_id for each in doorbells])

    def _publish_together(self, lists: Sequence[Sequence[Update]]) -> list[bool]:
        updates = [update for each in lists for update in each]
        is_published = self._publishing.send(
            lambda: self._publisher.publish(updates), [each.event_id for each in updates]
        )
        return [is_published] * len(lists)


class _Channel:
    """One way out: behind a breaker, counted, and logged once an outage instead of once an event."""

    def __init__(self, *, failed: str, back: str) -> None:
        self._breaker = Breaker()
        self._failed = failed
        self._back = back
        self._missed = 0

    def try_once(self, send: Callable[[], object]) -> bool:
        return self._breaker.call(send)

    def send(self, send: Callable[[], object], event_ids: Sequence[UUID]) -> bool:
        if self._breaker.call(send):
            if self._missed:
                missed, self._missed = self._missed, 0
                log.info(self._back, missed=missed)
            return True
        count = len(event_ids)
        Metrics.enqueue_failures.inc(count)
        (log.debug if self._missed else log.warning)(
            self._failed, count=count, reason=self._breaker.last_error, **logging.about_events(event_ids)
        )
        self._missed += count
        return False
