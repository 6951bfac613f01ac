"""The threads of a process in which handlers run, and the events that are claimed for them."""

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from holdfast.domain.event import Doorbell, Lease
from holdfast.messaging.bell import Rung
from holdfast.processor.worker.async_crew import AsyncCrew
from holdfast.processor.worker.slots import Slots
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = ["Crew", "Runs"]

log = logging.get(__name__)

PATIENCE_SECONDS = 1.0
"""An event that waits for a thread for longer is given back, for another process to take."""


class Runs(Protocol):
    """What is needed of an executor."""

    def claim(self, doorbells: Sequence[Doorbell]) -> list[Lease]:
        """Lease those of the doorbells that are due."""

    def claim_due(
        self, limit: int, *, is_suspect: bool, overdue_seconds: float, least_priority: int = 0
    ) -> list[Lease]:
        """Lease due events."""

    def groups(self, leases: Sequence[Lease]) -> list[list[Lease]]:
        """Which of them are to be run together."""

    def room(self, leases: Sequence[Lease]) -> int:
        """How many more events may be run together with those of a group."""

    def fits(self, leases: Sequence[Lease], others: Sequence[Lease]) -> bool:
        """Whether the events of two groups may be run together."""

    def is_async(self, lease: Lease) -> bool:
        """Whether its handler needs no thread."""

    def run_group(self, leases: Sequence[Lease], end: Callable[[], object]) -> None:
        """Run those of a group; ``end`` is called once, when all of them have ended."""

    def begin(self, leases: Sequence[Lease], end: Callable[[], object]) -> None:
        """Begin with events that need no thread; ``end`` is called for each."""

    def settle(self) -> None:
        """Settle, in this thread, what has ended and is not settled yet."""

    def settle_beside(self) -> None:
        """Have it settled in another one."""

    def give_back(self, leases: Sequence[Lease]) -> None:
        """Give up those that were not begun."""


Done = Callable[[], object]
"""Called once: the event has ended, or was given back."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A group of claimed events."""

    leases: Sequence[Lease]
    dones: Sequence[Done]
    since: float = field(default_factory=time.monotonic)

    def done(self) -> None:
        """All of them have ended."""
        for each in self.dones:
            each()


class Crew:
    """Runs claimed events, from doorbells and from polls, in one thread for each slot.

    Args:
        most_ahead: how many may wait for a thread; 0 where an event must have no neighbours.
        async_places: events of ``async def`` handlers at once, beside the threads; 0: they have a slot each, as all others.
        on_room: called when such events may be claimed again.

    Attributes:
        slots: each event has one until it is done.
    """

    def __init__(
        self, executor: Runs, *, threads: int, most_ahead: int, async_places: int = 0, reserved: int = 0,
        on_room: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        self._executor = executor
        self.aside = (
            AsyncCrew(executor, places=async_places, is_ahead=most_ahead > 0, on_room=on_room) if async_places else None
        )
        self.slots = Slots(threads, most_ahead=most_ahead, reserved=reserved)
        self._numbers = itertools.count()
        self._waiting: dict[int, _Waiting] = {}
        """By number, the oldest first. Who takes an entry out of it has the event."""
        self._queue: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._is_closed = False
        # Daemons: a handler that never ends must not keep the process from ending.
        self._threads = [
            threading.Thread(target=self._work, name=f"handler-{number}", daemon=True) for number in range(threads)
        ]

    def start(self) -> None:
        """Begin to run what is added."""
        for thread in self._threads:
            thread.start()
        if self.aside is not None:
            self.aside.start()

    @property
    def is_alive(self) -> bool:
        """Whether every thread runs."""
        return all(thread.is_alive() for thread in self._threads) and (self.aside is None or self.aside.is_alive)

    @property
    def busy(self) -> int:
        """How many events are claimed and have not ended, about."""
        return self.slots.busy + (self.aside.places.busy if self.aside is not None else 0)

    def is_async_full(self) -> bool:
        """Whether no more events of ``async def`` handlers are to be claimed."""
        return self.aside is not None and self.aside.is_full()

    def wait_until_idle(self, timeout_seconds: float) -> bool:
        """Whether no event is worked on, within this time."""
        until = time.monotonic() + timeout_seconds
        # In this order: an event leaves its slot once it has its place aside.
        if not self.slots.wait_until_free(timeout_seconds):
            return False
        return self.aside is None or self.aside.places.wait_until_free(max(0.0, until - time.monotonic()))

    def answer(self, rung: Sequence[Rung]) -> None:
        """Claim the events of doorbells and run those that are due."""
        claimed = self._executor.claim([Doorbell(each.event_id, each.version) for each in rung])
        leases = {lease.event.id: lease for lease in claimed}
        begun: list[tuple[Lease, Done]] = []
        for each in rung:
            lease = leases.pop(each.event_id, None)
            if lease is None:
                each.done()
            else:
                begun.append((lease, each.done))
        self.add(begun)

    def add(self, claimed: Sequence[tuple[Lease, Done]]) -> None:
        """Run claimed events as soon as threads are free."""
        dones = {lease.event.id: done for lease, done in claimed}
        leases = [lease for lease, _ in claimed]
        if self.aside is not None:
            leases = self._put_aside(self.aside, leases, dones)
        for group in self._executor.groups(leases):
            number = next(self._numbers)
            self._waiting[number] = _Waiting(group, [dones[lease.event.id] for lease in group])
            self._queue.put(number)
            if self._is_closed:
                self._give_back([number])

    def give_back_overdue(self) -> None:
        """Give back what has waited for too long: every thread is busy with something slow."""
        if self.aside is not None:
            self.aside.give_back_overdue(PATIENCE_SECONDS)
        limit = time.monotonic() - PATIENCE_SECONDS
        overdue = list(itertools.takewhile(lambda number: self._is_older(number, limit), list(self._waiting)))
        if overdue:
            self.slots.slow_down()
            self._give_back(overdue)

    def close(self) -> None:
        """Begin no event any more: give back those that wait. What runs goes on."""
        self._is_closed = True
        if self.aside is not None:
            self.aside.close()
        self._give_back(list(self._waiting))

    def _put_aside(self, aside: AsyncCrew, leases: Sequence[Lease], dones: Mapping[UUID, Done]) -> list[Lease]:
        """Leave those to it that need no thread, whose doorbells are answered with that; returns the others."""
        others: list[Lease] = []
        for lease in leases:
            if self._executor.is_async(lease):
                aside.add(lease)
                dones[lease.event.id]()
            else:
                others.append(lease)
        return others

    def _is_older(self, number: int, limit: float) -> bool:
        waiting = self._waiting.get(number)
        return waiting is None or waiting.since < limit

    def _give_back(self, numbers: Iterable[int]) -> None:
        given = [each for each in (self._waiting.pop(number, None) for number in numbers) if each is not None]
        if not given:
            return
        try:
            self._executor.give_back([lease for each in given for lease in each.leases])
        finally:
            for each in given:
                each.done()

    def _work(self) -> None:
        while True:
            waiting = self._waiting.pop(self._queue.get(), None)
            if waiting is not None:
                self._run(self._filled(waiting) if self._executor.room(waiting.leases) else waiting)

    def _filled(self, waiting: _Waiting) -> _Waiting:
        """With what other claims have brought meanwhile of the same kind."""
        for number, other in list(self._waiting.items()):
            if not self._executor.fits(waiting.leases, other.leases) or self._waiting.pop(number, None) is None:
                continue
            waiting = _Waiting([*waiting.leases, *other.leases], [*waiting.dones, *other.dones], waiting.since)
            if not self._executor.room(waiting.leases):
                break
        return waiting

    def _run(self, waiting: _Waiting) -> None:
        began = time.monotonic()
        try:
            self._executor.run_group(waiting.leases, waiting.done)
        except Exception:
            log.exception(Log.EXECUTION_BROKE, event_ids=[str(lease.event.id) for lease in waiting.leases])
        self.slots.note_pace((time.monotonic() - began) / len(waiting.leases))
        if self._queue.empty():
            self._executor.settle()
        else:
            self._executor.settle_beside()
