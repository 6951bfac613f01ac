"""Ends of attempts, published and told together; and committed together, where they need no transaction of their own."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from holdfast.domain.state import FINISHED
from holdfast.domain.transitions import Transition
from holdfast.domain.update import Update
from holdfast.messaging.announce import Announcer
from holdfast.processor.attempt.releasing import UNDECIDED
from holdfast.processor.attempt.turn import Turn
from holdfast.runtime import logging
from holdfast.runtime.collecting import Collected
from holdfast.runtime.telemetry import Log
from holdfast.storage.database import Database
from holdfast.storage.settling import Moved, move

__all__ = ["End", "Joined", "Undecided"]

Answer = TypeVar("Answer")

Undecided = Callable[[Exception, Sequence[Turn]], None]
"""Takes turns of which nobody knows what became of them, because PostgreSQL has gone away; ends them."""

MOST_TOGETHER = 64
"""Transitions of one transaction: a statement for more costs each of them no less."""


@dataclass(slots=True)
class End:
    """What one event comes to: a transition that is to be applied, or the update of one that is committed.

    Attributes:
        told: called after the commit, with the update, or with ``None`` where a guard said no: the lease was lost, say. The
            turn has ended then.
        refused: called instead where PostgreSQL refuses the transition by itself, with the reason. It ends the turn, or has
            another end for it.
    """

    turn: Turn
    outcome: Transition | Update
    told: Callable[[Update | None], object]
    refused: Callable[[Exception], object]


class Joined:
    """Applies ends for one process, from any number of threads.

    Args:
        owner: names the process in recorded errors.
        undecided: takes turns of which nobody knows what became of them, because PostgreSQL has gone away; ends them.
        call_next: takes the lanes of events that are done with, and how many events hold which limit no longer.
    """

    def __init__(
        self, database: Database, announcer: Announcer, *, owner: str,
        undecided: Undecided,
        call_next: Callable[[Iterable[UUID], Mapping[str, int]], None],
    ) -> None:  # fmt: skip
        self._database = database
        self._announcer = announcer
        self._owner = owner
        self._undecided = undecided
        self._call_next = call_next
        self._ends: Collected[End] = Collected("settler", self._settle, most=MOST_TOGETHER)

    def add(self, end: End) -> None:
        """Leave an end. Follow with one of the two others."""
        self._ends.leave(end)

    def settle(self) -> None:
        """Apply what was left, in this thread, unless another one does."""
        self._ends.work_off()

    def settle_beside(self) -> None:
        """Have it applied in a thread of its own: this one has other things to do."""
        self._ends.work_off_beside()

    def _settle(self, ends: Sequence[End]) -> None:
        committed = [each.outcome for each in ends if isinstance(each.outcome, Update)]
        if committed:
            # Each was committed by itself, with what its handler emitted.
            told = [each for each in ends if isinstance(each.outcome, Update)]
            self._publish_and_tell(told, Moved(committed, [new for each in told for new in each.turn.emitted]))
        if len(committed) < len(ends):
            self._apply([each for each in ends if not isinstance(each.outcome, Update)])

    def _apply(self, ends: Sequence[End]) -> None:
        """Apply, commit, publish and tell. One that fails takes no other along: each is then tried alone."""
        transitions = [each.outcome for each in ends if isinstance(each.outcome, Transition)]
        began_ns = time.time_ns()
        try:
            moved = self._database.call(move, transitions, worker=self._owner)
        except UNDECIDED as exc:
            self._undecided(exc, [each.turn for each in ends])
        except Exception as exc:  # noqa: BLE001 (one of them is at fault, and nobody knows which)
            if len(ends) == 1:
                if not _call(ends[0].turn, ends[0].refused, exc):
                    ends[0].turn.end()
            else:
                for each in ends:
                    self._apply([each])
        else:
            for each in ends:
                each.turn.note_settled(began_ns)
            self._publish_and_tell(ends, moved)

    def _publish_and_tell(self, ends: Sequence[End], moved: Moved) -> None:
        began_ns = time.time_ns()
        # Lines are about the one event that there is, or name theirs themselves.
        with logging.about(ends[0].turn.fields if len(ends) == 1 else {}):
            self._announcer.publish(moved.all_updates)
            self._announcer.ring(moved.doorbells)
        for each in ends:
            each.turn.note_published(began_ns)
        self._tell(ends, moved.updates)

    def _tell(self, ends: Sequence[End], updates: Sequence[Update]) -> None:
        # By its event: no two attempts of one process have the same one at the same moment, and of two that had the token
        # lets one pass.
        moved = {update.event_id: update for update in updates}
        lanes, lines = set[UUID](), Counter[str]()
        for each in ends:
            update = moved.pop(each.outcome.event_id, None)
            _call(each.turn, each.told, update)
            if update is not None and update.state in FINISHED and each.turn.lease.lane is not None:
                lanes.add(each.turn.lease.lane)
            if update is not None and each.turn.lease.limit is not None:
                lines[each.turn.lease.limit] += 1
        self._call_next(lanes, lines)
        for each in ends:
            each.turn.end()


def _call(turn: Turn, tell: Callable[[Answer], object], answer: Answer) -> bool:
    """Whether it could be told: a fault of ours must not keep the others from being told."""
    try:
        tell(answer)
    except Exception:
        turn.log.exception(Log.EXECUTION_BROKE)
        return False
    return True
