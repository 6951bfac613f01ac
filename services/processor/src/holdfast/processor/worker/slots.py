"""How many events a process has claimed at once, whichever way they were found."""

import threading

__all__ = ["FIRST_PACE_SECONDS", "Slots"]

AHEAD_SECONDS = 0.05
"""How long an event may wait for a thread once it is claimed, about: meanwhile an idle process could have it."""

FIRST_PACE_SECONDS = 1.0
"""Taken for the time of an event until some have been measured."""

WEIGHT = 0.1
"""Of the last event in the average of their times."""


class Slots:
    """Room for ``count`` events, one for each thread; and for some more to wait, while a thread is done with each quickly.

    Those that wait are claimed together, which makes claims cheap: a statement for many costs little more than for one.

    Args:
        most_ahead: how many may wait at most; 0 where an event must have no neighbours.
        ahead_seconds: how long one may wait, about.
        reserved: how many are kept for urgent events (:meth:`take_for_urgent`).
    """

    def __init__(
        self, count: int, *, most_ahead: int = 0, ahead_seconds: float = AHEAD_SECONDS, reserved: int = 0
    ) -> None:
        self.count = count
        self._reserved = reserved
        self._ahead_seconds = ahead_seconds
        self._free = count
        """Negative while events wait for a thread."""
        self._most_ahead = most_ahead
        self._ahead = 0
        self._pace_seconds = FIRST_PACE_SECONDS
        self._is_closed = False
        self._is_paused = False
        self._changed = threading.Condition()

    def take(self, timeout_seconds: float) -> int:
        """Take all the room that there is, once there is enough to be worth a claim; 0 if there is not within the time."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._room() > 0, timeout_seconds)
            taken = 0 if self._is_closed else self._room()
            self._free -= taken
        return taken

    def take_free(self) -> int:
        """Take what threads are free for, without waiting; returns how many."""
        with self._changed:
            taken = 0 if self._is_closed or self._is_paused else max(0, self._free - self._reserved)
            self._free -= taken
        return taken

    def take_for_urgent(self) -> int:
        """Take what threads are free for, the reserved ones included, without waiting; 0 where none are reserved."""
        with self._changed:
            is_open = self._reserved and not (self._is_closed or self._is_paused)
            taken = max(0, self._free) if is_open else 0
            self._free -= taken
        return taken

    def take_regardless(self, count: int) -> None:
        """Take so many, for events that are claimed already."""
        with self._changed:
            self._free -= count

    @property
    def has_room(self) -> bool:
        """Whether :meth:`take` would take any now."""
        return not self._is_closed and self._room() > 0

    def give_back(self, count: int) -> None:
        """Of those that were taken."""
        with self._changed:
            self._free += count
            if self._free > 0 or self._room() > 0:
                self._changed.notify_all()

    def note_pace(self, seconds: float) -> None:
        """A thread was busy with an event for so long."""
        # Without the lock: threads that do so at once may lose one of many.
        self._pace_seconds += (seconds - self._pace_seconds) * WEIGHT
        self._ahead = min(self._most_ahead, int(self.count * self._ahead_seconds / max(self._pace_seconds, 1e-6)))

    def slow_down(self) -> None:
        """Events have waited for too long: none is to wait until threads are quick again."""
        self._pace_seconds, self._ahead = FIRST_PACE_SECONDS, 0

    def wait_for_half(self, timeout_seconds: float) -> None:
        """Return when half of the threads are free, none will be, or the time is up."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or 2 * self._free >= self.count, timeout_seconds)

    def wait_until_free(self, timeout_seconds: float) -> bool:
        """Whether no event is worked on, within this time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._free == self.count, timeout_seconds)

    @property
    def busy(self) -> int:
        """Of how many events or places have been taken; more than ``count`` while events wait for a thread."""
        return self.count - self._free

    @property
    def is_paused(self) -> bool:
        """Whether none is given away."""
        return self._is_paused

    def pause(self) -> None:
        """Give none away until :meth:`resume`. Those that are taken stay taken."""
        with self._changed:
            self._is_paused = True

    def resume(self) -> None:
        """Give them away again."""
        with self._changed:
            self._is_paused = False
            self._changed.notify_all()

    def close(self) -> None:
        """Give none away any more. Those that are taken stay taken."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _room(self) -> int:
        if self._is_paused:
            return 0
        free = self._free - self._reserved
        room = free + self._ahead
        # A thread that is idle is not to wait for others. Those that wait are refilled by half: for one it is not worth it.
        return room if free > 0 or 2 * room >= self._ahead > 0 else 0
