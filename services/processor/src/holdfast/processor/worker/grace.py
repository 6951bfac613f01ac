"""How a process spends the time that it has for stopping."""

import time

__all__ = ["Grace"]

RELEASE_SECONDS = 4.0
"""Kept for giving back the events of interrupted handlers and for closing; less when the whole grace is short."""

CLOSE_SECONDS = 2.0
"""Of those, for closing: what runs longer is left behind with its lease."""


class Grace:
    """From now on, ``seconds`` until the process has to be gone."""

    def __init__(self, seconds: float) -> None:
        self.interrupt_after_seconds = seconds - min(RELEASE_SECONDS, 0.3 * seconds)
        self._deadline = time.monotonic() + seconds - min(CLOSE_SECONDS, 0.15 * seconds)

    def remaining_seconds(self) -> float:
        """For waiting on handlers."""
        return max(0.0, self._deadline - time.monotonic())
