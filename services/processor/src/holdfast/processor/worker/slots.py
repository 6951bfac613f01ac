"""How many handlers a process runs at once, whichever way their events were found."""

import threading
from collections.abc import Callable

__all__ = ["Slots"]


class Slots:
    """Room for ``count`` handlers, shared by those that doorbells bring and those that the poller finds."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = count
        self._is_closed = False
        self._changed = threading.Condition()

    def run(self, work: Callable[[], object]) -> None:
        """Wait for a slot and work in it. When the process stops nothing is done: a poll, of another process or the next
        one, finds the event.
        """
        if self._take_one():
            try:
                work()
            finally:
                self.give_back(1)

    def take_free(self) -> int:
        """Take what is free, without waiting; returns how many."""
        with self._changed:
            taken = 0 if self._is_closed else self._free
            self._free -= taken
        return taken

    def give_back(self, count: int) -> None:
        """Of those that were taken with :meth:`take_free`."""
        with self._changed:
            self._free += count
            self._changed.notify_all()

    def wait_for_half(self, timeout_seconds: float) -> None:
        """Return when half of the slots are free, none will be, or the time is up."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or 2 * self._free >= self.count, timeout_seconds)

    def wait_until_free(self, timeout_seconds: float) -> bool:
        """Whether all slots are free, within this time: no event is worked on."""
        with self._changed:
            return self._changed.wait_for(lambda: self._free == self.count, timeout_seconds)

    def close(self) -> None:
        """Give none away any more. Those that are taken stay taken."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _take_one(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._free)
            if self._is_closed:
                return False
            self._free -= 1
            return True
