"""One log line for what goes on for minutes."""

from collections.abc import Callable

from holdfast.runtime import logging

__all__ = ["INTERVAL_SECONDS", "Summary"]

log = logging.get(__name__)

INTERVAL_SECONDS = 60.0
"""Between two lines about the same work. A backlog is worked on once a second, and says the same each time."""


class Summary:
    """Adds up what turns have done: a line at the beginning, one a minute with the sum since the last, one at the end.

    Not thread-safe in its sums: two turns at once may log a line each, which is harmless.
    """

    def __init__(self, event: str, now: Callable[[], float]) -> None:
        """``event`` is a constant of ``Log``; ``now`` a monotonic clock in seconds."""
        self._event = event
        self._now = now
        self._count = 0
        self._is_going_on = False
        self._logged_at = 0.0

    def add(self, count: int) -> None:
        """Note one turn, which did nothing if ``count`` is 0."""
        self._count += count
        has_begun, has_ended = count > 0 and not self._is_going_on, count == 0 and self._is_going_on
        self._is_going_on = count > 0
        if self._count and (has_begun or has_ended or self._now() - self._logged_at >= INTERVAL_SECONDS):
            log.info(self._event, count=self._count)
            self._count, self._logged_at = 0, self._now()
