"""What a batch is made of, and what becomes of its events."""

from collections.abc import Sequence
from typing import NamedTuple

from holdfast.domain.transitions import Completion, Transition, resettle, settle
from holdfast.processor.attempt.failures import HandlerFailed
from holdfast.processor.attempt.turn import Turn
from holdfast.processor.handlers.outcomes import TransactionEnded
from holdfast.storage import Session
from holdfast.storage.held import current_transaction
from holdfast.storage.settling import Moved, move

__all__ = ["NOTHING_RAN", "BatchEnded", "Outcome", "Ran", "processed_before", "processed_now", "settle_all"]


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
    moved: Moved
    left: Sequence[Turn]


NOTHING_RAN = Ran((), Moved((), ()), ())


def settle_all(session: Session, transaction: str, outcomes: Sequence[Outcome], *, worker: str) -> Moved:
    """Apply the outcomes, and record what the handlers emitted, in the transaction of their effects.

    Raises:
        TransactionEnded: the session is in another one.
        IdentityTaken: an emitted event has the identity of another one.
    """
    if current_transaction(session) != transaction:
        raise TransactionEnded
    return move(session, [each.transition for each in outcomes], worker=worker)


def processed_now(turn: Turn, completion: Completion, transaction: str | None) -> Outcome:
    """The outcome of an event whose handler has finished."""
    return Outcome(turn, settle(turn.lease.event.id, turn.lease.token, completion, transaction=transaction), None)


def processed_before(turn: Turn) -> Outcome:
    """The outcome of an event that the processed-event log has."""
    return Outcome(turn, resettle(turn.lease.event.id, turn.lease.token), None, is_repeated=True)
