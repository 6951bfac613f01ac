"""What a batch is made of, and what becomes of its events."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from holdfast.domain.transitions import Completion, Transition, resettle, settle
from holdfast.domain.update import Update
from holdfast.processor.attempt.failures import HandlerFailed
from holdfast.processor.attempt.turn import Turn

__all__ = ["BatchEnded", "Outcome", "Ran", "Updates", "processed_before", "processed_now"]


Updates = Mapping[UUID, Update]
"""By the event's id."""


class BatchEnded(Exception):
    """A handler has committed the transaction of its batch.

    Attributes:
        begun: events of which effects may be in the database.
        rest: the others.
    """

    def __init__(self, begun: Sequence[Turn], rest: Sequence[Turn]) -> None:
        super().__init__()
        self.begun = begun
        self.rest = rest


class Outcome(NamedTuple):
    """What one event comes to."""

    turn: Turn
    transition: Transition
    failed: HandlerFailed | None
    is_repeated: bool = False
    """It was processed before; only its state is put right."""


class Ran(NamedTuple):
    """What was committed. ``left`` are events whose turn did not come in the transaction's time; one that is in neither
    list was lost.
    """

    outcomes: Sequence[Outcome]
    updates: Updates
    left: Sequence[Turn]


def processed_now(turn: Turn, completion: Completion, transaction: str | None) -> Outcome:
    """The outcome of an event whose handler has finished."""
    return Outcome(turn, settle(turn.lease.event.id, turn.lease.token, completion, transaction=transaction), None)


def processed_before(turn: Turn) -> Outcome:
    """The outcome of an event that the processed-event log has."""
    return Outcome(turn, resettle(turn.lease.event.id, turn.lease.token), None, is_repeated=True)
