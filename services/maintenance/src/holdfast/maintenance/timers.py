"""The timers of the worker process: the way to every duty that needs neither Redis nor the scheduler."""

import time
from collections.abc import Callable, Mapping

from holdfast.runtime.background import Repeater

__all__ = ["LONGEST_TURN_SECONDS", "Timers"]

LONGEST_TURN_SECONDS = 120.0
"""Without the end of a turn for that long a duty hangs. Every call in a turn has a timeout (a statement 30 s, a connection
5 s, Redis 2 s), so an outage ends a turn well before."""


class Timers:
    """Repeats each duty in a thread of its own, and knows when its last turn ended."""

    def __init__(self, duties: Mapping[str, tuple[Callable[[], object], float]]) -> None:
        """``duties``: name → (duty, seconds between two turns)."""
        self._seconds = {name: seconds for name, (_, seconds) in duties.items()}
        self._ended = dict.fromkeys(duties, time.monotonic())
        self._repeaters = [
            Repeater(name, self._timed(name, duty), interval_seconds=seconds)
            for name, (duty, seconds) in duties.items()
        ]

    def start(self) -> None:
        """Begin; each duty has its first turn at once."""
        for repeater in self._repeaters:
            repeater.start()

    def stop(self) -> None:
        """Let the turns under way end, and no other begin."""
        for repeater in self._repeaters:
            repeater.stop()

    def are_alive(self, *, longest_turn_seconds: float = LONGEST_TURN_SECONDS) -> bool:
        """Whether every duty's thread runs and has ended its turns in time, be it with an error."""
        now = time.monotonic()
        return all(repeater.is_alive for repeater in self._repeaters) and all(
            now - self._ended[name] <= 2 * seconds + longest_turn_seconds for name, seconds in self._seconds.items()
        )

    def _timed(self, name: str, duty: Callable[[], object]) -> Callable[[], None]:
        def turn() -> None:
            try:
                duty()
            finally:
                self._ended[name] = time.monotonic()

        return turn
