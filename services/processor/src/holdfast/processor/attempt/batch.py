"""What a batch is made of, and what becomes of its events."""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from holdfast.domain.event import Lease
from holdfast.domain.transitions import Transition, resettle
from holdfast.domain.update import Update
from holdfast.processor.attempt.failures import HandlerFailed
from holdfast.runtime.logging import Logger

__all__ = ["BatchEnded", "Item", "Outcome", "Ran", "processed_before"]


class Item(NamedTuple):
    """An event of a batch, with the log of its attempt."""

    lease: Lease
    log: Logger


class BatchEnded(Exception):
    """A handler has committed the transaction of its batch.

    Attributes:
        begun: events of which effects may be in the database.
        rest: the others.
    """

    def __init__(self, begun: Sequence[Item], rest: Sequence[Item]) -> None:
        super().__init__()
        self.begun = begun
        self.rest = rest


class Outcome(NamedTuple):
    """What one event comes to. ``started`` is on the monotonic clock."""

    item: Item
    transition: Transition
    failed: HandlerFailed | None
    started: float
    is_repeated: bool = False
    """It was processed before; only its state is put right."""


class Ran(NamedTuple):
    """What was committed. ``left`` are events whose turn did not come in the transaction's time; one that is in neither
    list was lost.
    """

    outcomes: Sequence[Outcome]
    updates: Mapping[UUID, Update]
    left: Sequence[Item]


def processed_before(item: Item) -> Outcome:
    """The outcome of an event that the processed-event log has."""
    return Outcome(item, resettle(item.lease.event.id, item.lease.token), None, time.monotonic(), is_repeated=True)
