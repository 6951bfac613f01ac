"""What was looked up, for a while."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Expiring"]

Name = TypeVar("Name")
Value = TypeVar("Value")


class Expiring(Generic[Name, Value]):
    """Values by their names, for any number of threads.

    Args:
        seconds: how long a value is known.
        most: how many are kept; those asked for last stay.
        clock: in seconds.
    """

    def __init__(self, seconds: float, *, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._most, self._clock = seconds, most, clock
        self._lock = threading.Lock()
        self._known: OrderedDict[Name, tuple[Value, float]] = OrderedDict()

    def get(self, name: Name) -> Value | None:
        """The value, unless it is not known or too old."""
        with self._lock:
            found = self._known.get(name)
            if found is None or self._clock() >= found[1]:
                self._known.pop(name, None)
                return None
            self._known.move_to_end(name)
            return found[0]

    def put(self, name: Name, value: Value) -> None:
        """From now on."""
        with self._lock:
            self._known[name] = (value, self._clock() + self._seconds)
            self._known.move_to_end(name)
            while len(self._known) > self._most:
                self._known.popitem(last=False)

    def __len__(self) -> int:
        return len(self._known)
