"""A limit on failed sign-ins. It spares the database and the log; the keys' 256 random bits are what keeps guessers out."""

import threading
import time
from collections.abc import Callable

__all__ = ["MOST_FAILURES", "WINDOW_SECONDS", "Throttle"]

MOST_FAILURES = 10
"""Of one address within :data:`WINDOW_SECONDS`, in one process of ingest."""

WINDOW_SECONDS = 60.0

MAX_ADDRESSES = 10_000
"""Remembered at a time: bounds what strangers can make a process keep."""


class Throttle:
    """Counts failures by address in windows of fixed length.

    Each process has its own: with several, an address has that many times the failures. Behind a proxy that is not trusted
    (``HOLDFAST_TRUSTED_PROXIES``) the address is the proxy's, so everybody shares the limit; it ends with the window.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def seconds_left(self, address: str) -> float:
        """How long this address has to wait; 0 when it may try."""
        with self._lock:
            ends_at, count = self._failures.get(address, (0.0, 0))
        return max(0.0, ends_at - self._clock()) if count >= MOST_FAILURES else 0.0

    def note_failure(self, address: str) -> None:
        """Count a failed sign-in."""
        now = self._clock()
        with self._lock:
            ends_at, count = self._failures.get(address, (0.0, 0))
            if len(self._failures) >= MAX_ADDRESSES and address not in self._failures:
                self._failures.clear()
            self._failures[address] = (now + WINDOW_SECONDS, 1) if ends_at <= now else (ends_at, count + 1)
