"""The bell: how processors are told that an event may be due, whatever broker carries it.

A doorbell is a hint. A bell may lose one, deliver it twice or late: the event is found by polling and redispatch. So a
bell needs no durability of its own; it has to be quick, and honest about what it did not take.

``tests/contract/test_bell.py`` is the conformance suite: every bell passes it. A further broker is a module beside
``redis_bell`` and a line in ``brokers`` (``docs/extending.md``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from holdfast.domain.event import Doorbell

__all__ = ["Answer", "Bell", "Listener", "Room", "Rung"]


@dataclass(frozen=True, slots=True)
class Rung:
    """A doorbell that was taken from the broker.

    ``done()``: its event was looked after, so nobody has to hear it again; and its place is free. From any thread, once.
    """

    event_id: UUID
    version: int
    done: Callable[[], None]


Answer = Callable[[Sequence[Rung]], None]
"""Called from one thread with the doorbells that ring at a moment, at least one. What it raises is logged, and none of them
is heard again."""


class Room(Protocol):
    """How many doorbells a listener may have taken that are not done."""

    def take(self, timeout_seconds: float) -> int:
        """Places, all that there are; 0 if there is none within the time."""

    def give_back(self, count: int) -> None:
        """Places that were taken for doorbells that did not ring, or that are done."""


class Listener(Protocol):
    """Threads that answer the doorbells of one queue. Made by :meth:`Bell.consume`, not yet started."""

    @property
    def is_alive(self) -> bool:
        """Whether every thread that takes part runs. A broker that is away does not matter: the listener waits for it."""

    def start(self) -> None:
        """Begin to take doorbells. Does not wait for the broker."""

    def stop(self, *, timeout_seconds: float) -> None:
        """Take nothing new from now on, wait until what was answered is done, and hand back the rest."""


class Bell(Protocol):
    """One process's connection to the broker. Safe to use from any thread."""

    def ring(self, doorbells: Sequence[Doorbell]) -> None:
        """Ring for each event, after the commit that made it due. Suspects are rung for on a queue of their own.

        Raises:
            BrokerUnavailable: not all were taken, as far as is known; within the bell's timeout.
        """

    def consume(self, queue: str, *, room: Room, answer: Answer) -> Listener:
        """A listener for ``queue`` (``doorbell.QUEUE`` or ``doorbell.SUSPECT_QUEUE``), which takes what there is room for."""

    def ping(self) -> None:
        """Do what ringing does, without anybody hearing it: a broker that answers and takes nothing is of no use.

        Raises:
            BrokerUnavailable: a doorbell would not be taken.
        """

    def close(self) -> None:
        """Let go of the broker. May be called again."""
