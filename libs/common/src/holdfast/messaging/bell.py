"""The bell: how processors are told that an event may be due, whatever broker carries it.

A doorbell is a hint. A bell may lose one, deliver it twice or late: the event is found by polling and redispatch. So a
bell needs no durability of its own; it has to be quick, and honest about what it did not take.

``tests/contract/test_bell.py`` is the conformance suite: every bell passes it. A further broker is a module beside
``redis_bell`` and a line in ``brokers`` (``docs/extending.md``).
"""

from collections.abc import Callable, Sequence
from typing import Protocol
from uuid import UUID

from holdfast.domain.event import Doorbell

__all__ = ["Answer", "Bell", "Listener"]

Answer = Callable[[UUID, int], None]
"""Called with ``(event_id, version)`` of each doorbell, from several threads. What it raises is logged, never repeated."""


class Listener(Protocol):
    """Threads that answer the doorbells of one queue. Made by :meth:`Bell.consume`, not yet started."""

    @property
    def is_alive(self) -> bool:
        """Whether every thread that takes part runs. A broker that is away does not matter: the listener waits for it."""

    def start(self) -> None:
        """Begin to take doorbells. Does not wait for the broker."""

    def stop(self, *, timeout_seconds: float) -> None:
        """Take nothing new from now on, wait for the answers that run, and hand back what was taken and not begun."""


class Bell(Protocol):
    """One process's connection to the broker. Safe to use from any thread."""

    def ring(self, doorbells: Sequence[Doorbell]) -> None:
        """Ring for each event, after the commit that made it due. Suspects are rung for on a queue of their own.

        Raises:
            BrokerUnavailable: not all were taken, as far as is known; within the bell's timeout.
        """

    def consume(self, queue: str, *, threads: int, answer: Answer) -> Listener:
        """A listener for ``queue`` (``doorbell.QUEUE`` or ``doorbell.SUSPECT_QUEUE``), with ``threads`` answers at once."""

    def ping(self) -> None:
        """Do what ringing does, without anybody hearing it: a broker that answers and takes nothing is of no use.

        Raises:
            BrokerUnavailable: a doorbell would not be taken.
        """

    def close(self) -> None:
        """Let go of the broker. May be called again."""
