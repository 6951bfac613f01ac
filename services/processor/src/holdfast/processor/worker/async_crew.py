"""Events of ``async def`` handlers: claimed as others are, begun without a thread of the crew, as many at once as is set."""

import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from holdfast.domain.event import Lease
from holdfast.processor.worker.slots import FIRST_PACE_SECONDS, Slots
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = ["AsyncCrew", "Begins"]

log = logging.get(__name__)

AHEAD_SECONDS = 0.5
"""How long a claimed event may wait for a place, about."""


class Begins(Protocol):
    """What is needed of an executor."""

    def begin(self, leases: Sequence[Lease], end: Callable[[], object]) -> None:
        """Begin with events; ``end`` is called for each of them, when it has ended."""

    def give_back(self, leases: Sequence[Lease]) -> None:
        """Give up those that were not begun."""


class _Waiting(NamedTuple):
    lease: Lease
    since: float


class AsyncCrew:
    """Begins claimed events, in one thread, once there are places for them.

    An event is here from when it was claimed: its doorbell is answered, and its slot of the crew free for another one. It may
    wait for a place for as long as places are free again soon; when there are enough that wait, no more are to be claimed
    (:meth:`is_full`). What an event comes to is none of its business.

    Args:
        places: how many are at work at once.
        is_ahead: whether events may be claimed that wait for a place.
        on_room: called when events that were not claimed for want of room may be.
    """

    def __init__(self, executor: Begins, *, places: int, is_ahead: bool, on_room: Callable[[], object]) -> None:
        self._executor = executor
        self._on_room = on_room
        self.places = Slots(places, most_ahead=places if is_ahead else 0, ahead_seconds=AHEAD_SECONDS)
        """Those taken are of events that are at work, and of events that wait."""
        self.places.note_pace(FIRST_PACE_SECONDS)
        self._may_begin = threading.Semaphore(places)
        self._numbers = itertools.count()
        self._waiting: dict[int, _Waiting] = {}
        """By number, the oldest first. Who takes an entry out of it has the event."""
        self._queue: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._has_refused = False
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="async-handlers", daemon=True)

    def start(self) -> None:
        """Begin with what is added."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def is_full(self) -> bool:
        """Whether no more are to be claimed."""
        if self.places.has_room:
            return False
        self._has_refused = True
        return True

    def add(self, lease: Lease) -> None:
        """Begin with a claimed event as soon as there is a place."""
        self.places.take_regardless(1)
        number = next(self._numbers)
        self._waiting[number] = _Waiting(lease, time.monotonic())
        self._queue.put(number)
        if self._is_closed:
            self._give_back([number])

    def give_back_overdue(self, patience_seconds: float) -> None:
        """Give back what has waited for longer."""
        limit = time.monotonic() - patience_seconds
        if overdue := [number for number, each in list(self._waiting.items()) if each.since < limit]:
            self.places.slow_down()
            self._give_back(overdue)

    def close(self) -> None:
        """Begin no event any more: give back those that wait."""
        self._is_closed = True
        self.places.close()
        self._give_back(list(self._waiting))

    def _give_back(self, numbers: Sequence[int]) -> None:
        given = [each for each in (self._waiting.pop(number, None) for number in numbers) if each is not None]
        if not given:
            return
        try:
            self._executor.give_back([each.lease for each in given])
        finally:
            self.places.give_back(len(given))

    def _work(self) -> None:
        while True:
            numbers = [self._queue.get()]
            self._may_begin.acquire()
            try:
                while self._may_begin.acquire(blocking=False):
                    numbers.append(self._queue.get_nowait())
            except queue.Empty:
                self._may_begin.release()
            begun = [each.lease for each in (self._waiting.pop(number, None) for number in numbers) if each is not None]
            for _ in range(len(numbers) - len(begun)):
                self._may_begin.release()
            if begun:
                self._begin(begun)

    def _begin(self, leases: Sequence[Lease]) -> None:
        began = time.monotonic()
        try:
            self._executor.begin(leases, lambda: self._ended(began))
        except Exception:
            log.exception(Log.EXECUTION_BROKE, event_ids=[str(lease.event.id) for lease in leases])

    def _ended(self, began: float) -> None:
        self._may_begin.release()
        self.places.note_pace(time.monotonic() - began)
        self.places.give_back(1)
        if self._has_refused and self.places.has_room:
            self._has_refused = False
            self._on_room()
