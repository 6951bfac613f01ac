"""How often something may happen: a token bucket."""

import math
import time
from collections.abc import Callable

from holdfast.gateway.demo.answers import Refusal

__all__ = ["Allowance"]


class Allowance:
    """``per_second`` on average, and ``burst`` at once. For one process, all visitors together.

    Args:
        now: seconds of a clock that never goes back.
    """

    def __init__(self, *, per_second: float, burst: int, now: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = burst
        self._now = now
        self._left = float(burst)
        self._at = now()

    def take(self) -> None:
        """Use one.

        Raises:
            Refusal: 429 when there is none left.
        """
        now = self._now()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            wait_seconds = math.ceil((1 - self._left) / self._per_second)
            detail = f"the demo answers about {self._per_second:g} of these a second; wait a moment"
            raise Refusal(429, "too_many_requests", detail, retry_after=wait_seconds)
        self._left -= 1
