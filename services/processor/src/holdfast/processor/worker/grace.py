"""How a process spends the time that it has for stopping."""

import time

__all__ = ["Grace"]

RELEASE_SECONDS = 4.0
"""Kept for giving back the events of interrupted handlers and for closing; less when the whole grace is short."""

CLOSE_SECONDS = 2.0
"""Of those, for giving back the events of handlers that do not end, and for closing."""


class Grace:
    """From now on, ``seconds`` until the process has to be gone.

    Attributes:
        ends_at: when that is, on the monotonic clock.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.ends_at = time.monotonic() + seconds
        self._interrupts_at = self.ends_at - min(RELEASE_SECONDS, 0.5 * seconds)
        self._gives_up_at = self.ends_at - min(CLOSE_SECONDS, 0.25 * seconds)

    def seconds_to_interrupt(self) -> float:
        """For waiting on handlers that may finish."""
        return max(0.0, self._interrupts_at - time.monotonic())

    def seconds_to_give_up(self) -> float:
        """For waiting on handlers that were interrupted."""
        return max(0.0, self._gives_up_at - time.monotonic())
