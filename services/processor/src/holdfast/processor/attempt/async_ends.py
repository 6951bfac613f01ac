"""How attempts of ``async def`` handlers end: in a thread that may wait, whatever the event loop does."""

from collections.abc import Callable, Sequence

from holdfast.domain.errors import AlreadyProcessed
from holdfast.domain.transitions import Completion
from holdfast.processor.attempt.endings import Endings
from holdfast.processor.attempt.failures import HandlerFailed
from holdfast.processor.attempt.interruption import Interrupted
from holdfast.processor.attempt.releasing import UNDECIDED, Releaser
from holdfast.processor.attempt.reporting import report_lost
from holdfast.processor.attempt.turn import Turn
from holdfast.runtime.collecting import Collected
from holdfast.runtime.telemetry import Log

__all__ = ["AsyncEnds", "Outcome"]

MOST_TOGETHER = 64
"""Ends that are settled in one transaction."""

Outcome = Completion | BaseException
"""What a handler comes to: its completion, ``HandlerFailed``, ``Interrupted``, ``LeaseLost`` or ``AlreadyProcessed``."""


class AsyncEnds:
    """Ends attempts of ``async def`` handlers, which are left on the event loop, in a thread that may wait.

    Args:
        settle: settles what has ended.
    """

    def __init__(self, endings: Endings, releaser: Releaser, *, settle: Callable[[], None]) -> None:
        self._endings = endings
        self._releaser = releaser
        self._settle = settle
        self._ends: Collected[tuple[Turn, Outcome]] = Collected("async-ends", self._end_all, most=MOST_TOGETHER)

    def leave(self, turn: Turn, outcome: Outcome) -> None:
        """An attempt has ended."""
        self._ends.leave((turn, outcome))
        self._ends.work_off_beside()

    def _end_all(self, ends: Sequence[tuple[Turn, Outcome]]) -> None:
        interrupted = [turn for turn, outcome in ends if isinstance(outcome, Interrupted)]
        for turn, outcome in ends:
            if not isinstance(outcome, Interrupted):
                with turn.current():
                    self._end(turn, outcome)
        if interrupted:
            self._give_back(interrupted)
        self._settle()

    def _end(self, turn: Turn, outcome: Outcome) -> None:
        if isinstance(outcome, Completion):
            self._endings.finished(turn, outcome)
        elif isinstance(outcome, HandlerFailed):
            self._endings.failed(turn, outcome.error, outcome.report)
        elif isinstance(outcome, AlreadyProcessed):
            self._endings.already_processed(turn)
        else:
            report_lost(turn.log)
            turn.end()

    def _give_back(self, turns: Sequence[Turn]) -> None:
        try:
            self._releaser.all_interrupted(turns)
        except UNDECIDED as exc:
            for turn in turns:
                turn.log.warning(Log.DATABASE_UNAVAILABLE, reason=str(exc))
                turn.end()
