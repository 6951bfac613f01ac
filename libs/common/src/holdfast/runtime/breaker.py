"""A circuit breaker: stop asking a server that does not answer, and look again after a while."""

import threading
import time
from collections.abc import Callable

from holdfast.domain.errors import BrokerUnavailable, LiveWindowUnavailable

__all__ = ["Breaker"]


class Breaker:
    """Lets calls through until ``failures`` of them in a row have failed, then one every ``pause_seconds``.

    Without it each request would wait for the whole timeout while Redis is down or hangs, and every thread would be waiting.
    """

    def __init__(self, *, failures: int = 3, pause_seconds: float = 1.0) -> None:
        self._allowed_failures = failures
        self._pause_seconds = pause_seconds
        self._failures = 0
        self._closed_until = 0.0
        self.last_error = ""
        """Why the last failed call failed, for a log line."""
        self._lock = threading.Lock()

    def call(self, work: Callable[[], object]) -> bool:
        """Do the work, or not; whether it was done.

        ``BrokerUnavailable`` and ``LiveWindowUnavailable`` count as failures; whatever else it raises is passed on.
        """
        if not self._may_try():
            return False
        try:
            work()
        except (BrokerUnavailable, LiveWindowUnavailable) as exc:
            self._failed(exc)
            return False
        with self._lock:
            self._failures = 0
        return True

    def _may_try(self) -> bool:
        with self._lock:
            if self._failures < self._allowed_failures:
                return True
            if time.monotonic() < self._closed_until:
                return False
            self._closed_until = time.monotonic() + self._pause_seconds  # this caller looks, the others wait
            return True

    def _failed(self, exc: Exception) -> None:
        with self._lock:
            self.last_error = str(exc)
            self._failures += 1
            self._closed_until = time.monotonic() + self._pause_seconds
