"""Backpressure: turn events away while the backlog is too old, so that it does not grow without bound.

Hysteresis keeps the gate from flapping: it shuts when the oldest due event has waited for longer than the limit, and opens
again when that is down to half.
"""

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from holdfast.domain.errors import DatabaseUnavailable
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log, Metrics

__all__ = ["LOOK_SECONDS", "BacklogTooOld", "Backpressure", "is_shut"]

log = logging.get(__name__)

CACHE_SECONDS = 1.0
"""How long a measurement serves every request of this process."""

LOOK_SECONDS = 5.0
"""Between two measurements when no request asks for one."""

RETRY_AFTER_SECONDS = (2, 10)
"""Drawn from this range, so that producers which were turned away together do not come back together."""


class BacklogTooOld(Exception):
    """Events are turned away. ``retry_after_seconds``: when to send the same event again."""

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__("events wait for too long already; send the same event again after Retry-After")
        self.retry_after_seconds = retry_after_seconds


def is_shut(was_shut: bool, *, age_seconds: float, limit_seconds: float) -> bool:
    """Whether to turn events away, given whether they were until now. A limit of 0 never does."""
    if limit_seconds == 0:
        return False
    return age_seconds >= limit_seconds / 2 if was_shut else age_seconds > limit_seconds


class Backpressure:
    """A gate for new events. The age is measured by one request at a time; the others go by the last answer.

    Args:
        measure: the age of the oldest due event in seconds; may raise ``DatabaseUnavailable``, which changes nothing:
            recording will say so itself.
        limit_seconds: 0 turns the gate off.
    """

    def __init__(
        self, measure: Callable[[], float], *, limit_seconds: float, cache_seconds: float = CACHE_SECONDS
    ) -> None:
        self._measure = measure
        self._limit_seconds = limit_seconds
        self._cache_seconds = cache_seconds
        self._is_shut = False
        self._fresh_until = 0.0
        self._measuring = threading.Lock()

    def check(self) -> None:
        """Let the caller pass.

        Raises:
            BacklogTooOld: with a jittered time to wait.
        """
        if self._limit_seconds and self._has_to_measure():
            try:
                self._remeasure()
            finally:
                self._measuring.release()
        if self._is_shut:
            raise BacklogTooOld(random.randint(*RETRY_AFTER_SECONDS))  # noqa: S311 (jitter)

    def look_again(self) -> None:
        """Measure while events are turned away, though no request comes: producers may have gone to another process, and the
        gauge is to say the truth.
        """
        if self._is_shut:
            with suppress(BacklogTooOld):
                self.check()

    def _has_to_measure(self) -> bool:
        """Whether the value is stale and nobody else is at it; the lock is then held."""
        if time.monotonic() < self._fresh_until or not self._measuring.acquire(blocking=False):
            return False
        if time.monotonic() < self._fresh_until:  # another has just finished
            self._measuring.release()
            return False
        return True

    def _remeasure(self) -> None:
        try:
            age_seconds = self._measure()
        except DatabaseUnavailable:
            return
        finally:
            self._fresh_until = time.monotonic() + self._cache_seconds
        was_shut, self._is_shut = self._is_shut, is_shut(
            self._is_shut, age_seconds=age_seconds, limit_seconds=self._limit_seconds
        )  # fmt: skip
        if was_shut != self._is_shut:
            Metrics.turning_away.set(self._is_shut)
            write = log.warning if self._is_shut else log.info
            write(
                Log.BACKLOG_TOO_OLD if self._is_shut else Log.BACKLOG_WORKED_OFF, oldest_due_seconds=round(age_seconds)
            )
