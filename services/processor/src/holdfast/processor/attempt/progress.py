"""Progress, told live while a handler runs."""

import time
from collections.abc import Callable

from holdfast.domain.event import Lease
from holdfast.domain.state import State
from holdfast.domain.update import Update
from holdfast.messaging.announce import Announcer
from holdfast.runtime.ids import utc_now
from holdfast.runtime.logging import Logger
from holdfast.runtime.telemetry import Log

__all__ = ["LiveProgress"]

INTERVAL_SECONDS = 0.1
"""A loop that reports every row must not flood the live window: reports in between are dropped, a final 1.0 is not."""


class LiveProgress:
    """Publishes one attempt's progress as steps 1, 2, … at the version of its claim.

    Never an error: the first report that Redis does not take is logged and the last one tried. Each further one could
    hold the handler's transaction open for another timeout.

    Args:
        beside: calls what it is given, which waits for Redis; in another thread, where this one must not wait.
    """

    def __init__(
        self, announcer: Announcer, lease: Lease, log: Logger,
        *, beside: Callable[[Callable[[], object]], object] = lambda tell: tell(),
    ) -> None:  # fmt: skip
        self._announcer = announcer
        self._lease = lease
        self._log = log
        self._beside = beside
        self._step = 0
        self._fraction = 0.0
        self._told_at = float("-inf")
        self._is_silent = False

    def __call__(self, fraction: float, message: str | None) -> None:
        """Tell it, unless the last report was a moment ago."""
        now = time.monotonic()
        is_end = fraction >= 1.0 > self._fraction
        if self._is_silent or (now - self._told_at < INTERVAL_SECONDS and not is_end):
            return
        self._step += 1
        self._fraction, self._told_at = fraction, now
        update = self._update(fraction, message)
        self._beside(lambda: self._publish(update))

    def _publish(self, update: Update) -> None:
        if not self._announcer.publish_progress(update):
            self._is_silent = True
            self._log.warning(Log.PROGRESS_NOT_TOLD)

    def _update(self, fraction: float, message: str | None) -> Update:
        event = self._lease.event
        return Update(
            event_id=event.id,
            tenant=event.tenant,
            type=event.type,
            audience=event.audience,
            state=State.PROCESSING,
            version=self._lease.version,
            step=self._step,
            attempt=self._lease.attempt,
            at=utc_now(),
            detail={"progress": {"fraction": fraction, "message": message}},
        )
