"""The timers of the worker process: the way to every duty that needs neither Redis nor the scheduler."""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from holdfast.runtime.background import Repeater

__all__ = ["LONGEST_TURN_SECONDS", "Sweeps", "Timers"]

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


class Sweeps:
    """Runs each sweep in a thread of its own when a look finds that it is due: one look for all, so that idling is cheap.

    A sweep that did something has another turn after the next look, whatever that finds: so it learns that it is done.

    Args:
        sweeps: name → sweep, which returns how much it did.
        look: the names of those that are due. To be called by a timer through :meth:`look`.
    """

    def __init__(self, sweeps: Mapping[str, Callable[[], int]], look: Callable[[], Iterable[str]]) -> None:
        self._look = look
        self._wanted = set(sweeps)
        self._again: set[str] = set()
        self._since: dict[str, float] = {}
        """When the turn under way began."""
        self._repeaters = {
            name: Repeater(name, self._turn(name, sweep), interval_seconds=0, is_needed=partial(self._is_wanted, name))
            for name, sweep in sweeps.items()
        }

    def start(self) -> None:
        """Begin; each sweep has its first turn at once."""
        for repeater in self._repeaters.values():
            repeater.start()

    def look(self) -> None:
        """Look once, and wake the sweeps that are due."""
        again = set(self._again)
        self._again -= again
        for name in {*again, *self._look()}:
            self._wanted.add(name)
            self._repeaters[name].wake()

    def stop(self) -> None:
        """Let the turns under way end, and no other begin."""
        for repeater in self._repeaters.values():
            repeater.stop()

    def are_alive(self, *, longest_turn_seconds: float = LONGEST_TURN_SECONDS) -> bool:
        """Whether every sweep's thread runs and no turn takes too long. One that has nothing to do may rest for ever."""
        now = time.monotonic()
        return all(repeater.is_alive for repeater in self._repeaters.values()) and all(
            now - since <= longest_turn_seconds for since in list(self._since.values())
        )

    def _is_wanted(self, name: str) -> bool:
        return name in self._wanted

    def _turn(self, name: str, sweep: Callable[[], int]) -> Callable[[], None]:
        def turn() -> None:
            self._wanted.discard(name)  # before the turn: what comes up during it is wanted again
            self._since[name] = time.monotonic()
            try:
                if sweep():
                    self._again.add(name)
            finally:
                del self._since[name]

        return turn
