"""How attempts end by themselves: each end is a transition that is applied, published, counted and logged.

What needs no transaction of its own is left to :class:`~holdfast.processor.attempt.joining.Joined`, and told from there.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

from holdfast.domain.errors import AlreadyProcessed
from holdfast.domain.transitions import Completion, Transition, resettle, settle
from holdfast.domain.update import Update
from holdfast.processor.attempt.claiming import Claimer
from holdfast.processor.attempt.failures import HandlerFailed
from holdfast.processor.attempt.interruption import Interrupted
from holdfast.processor.attempt.joining import End, Joined
from holdfast.processor.attempt.releasing import UNDECIDED, Releaser
from holdfast.processor.attempt.reporting import report_failure, report_lost
from holdfast.processor.attempt.turn import Turn
from holdfast.processor.handlers.outcomes import failure
from holdfast.processor.handlers.reports import Report, report_of
from holdfast.runtime.collecting import Collected
from holdfast.runtime.telemetry import Log, Metrics

__all__ = ["AsyncEnds", "Endings", "Outcome"]

MOST_TOGETHER = 64
"""Ends that are settled in one transaction."""

Outcome = Completion | BaseException
"""What a handler comes to: its completion, ``HandlerFailed``, ``Interrupted``, ``LeaseLost`` or ``AlreadyProcessed``."""


class Endings:
    """Ends attempts, from any number of threads."""

    def __init__(self, joined: Joined, claimer: Claimer, *, draw: Callable[[], float], with_texts: bool) -> None:
        self._joined = joined
        self._claimer = claimer
        self._draw = draw
        self._with_texts = with_texts

    def finished(self, turn: Turn, completion: Completion) -> None:
        """The handler has finished and has written nothing."""
        done = settle(turn.lease.event.id, turn.lease.token, completion)
        self._joined.add(End(turn, done, told=partial(self._told, turn), refused=partial(self._refused, turn)))

    def settled(self, turn: Turn, update: Update) -> None:
        """The event is processed, in the transaction of what its handler has written."""
        self._joined.add(End(turn, update, told=partial(self._told, turn), refused=partial(_not_told, turn)))

    def failed(self, turn: Turn, exc: BaseException, report: Report | None = None) -> None:
        """The attempt has failed: it is tried again, or the event is dead."""
        report = report or report_of(exc, package=turn.handler.package if turn.handler else None)
        transition = self.judge(turn, exc, report)
        told = partial(self._told_failed, turn, transition, report)
        self._joined.add(End(turn, transition, told=told, refused=partial(_not_told, turn)))

    def already_processed(self, turn: Turn) -> None:
        """The processed-event log has the event; its state follows."""
        turn.log.warning(Log.ALREADY_PROCESSED)
        right = resettle(turn.lease.event.id, turn.lease.token)
        self._joined.add(End(turn, right, told=lambda _: None, refused=partial(_not_told, turn)))

    def judge(self, turn: Turn, exc: BaseException, report: Report) -> Transition:
        """What a failed attempt comes to."""
        duration_ms = int((time.monotonic() - turn.started) * 1000)
        return failure(exc, turn.lease, turn.handler, draw=self._draw(), duration_ms=duration_ms, report=report)

    def note_processed(self, turn: Turn, update: Update) -> None:
        """The event is processed, which is committed and published."""
        seconds = time.monotonic() - turn.started
        name = turn.handler.name if turn.handler else ""
        Metrics.handler_seconds.labels(name, "processed").observe(seconds)
        Metrics.end_to_end_seconds.labels(name).observe((update.at - turn.lease.event.due_since).total_seconds())
        turn.log.info(Log.PROCESSED, duration_ms=int(seconds * 1000))

    def note_failed(self, turn: Turn, transition: Transition, report: Report) -> None:
        """The attempt has failed, which is committed and published."""
        if transition.error is None:
            self._note_snoozed(turn, transition)
            return
        duration_ms = transition.error.duration_ms
        name = turn.handler.name if turn.handler else ""
        turn.span.fail(report.type)
        Metrics.handler_seconds.labels(name, "failed").observe((duration_ms or 0) / 1000)
        report_failure(report, transition, turn.handler, turn.log, with_texts=self._with_texts)

    def _note_snoozed(self, turn: Turn, transition: Transition) -> None:
        name = turn.handler.name if turn.handler else ""
        Metrics.handler_seconds.labels(name, "snoozed").observe(time.monotonic() - turn.started)
        turn.log.info(Log.SNOOZED, retry_in_seconds=transition.delay_seconds)

    def call_next(self, *turns: Turn) -> None:
        """Wake the next events of the subjects of events that are done with."""
        self._claimer.call_next({turn.lease.lane for turn in turns if turn.lease.lane is not None})

    def _told(self, turn: Turn, update: Update | None) -> None:
        if update is None:
            report_lost(turn.log)
        else:
            self.note_processed(turn, update)

    def _refused(self, turn: Turn, exc: Exception) -> None:
        if isinstance(exc, AlreadyProcessed):
            self.already_processed(turn)
        else:
            self.failed(turn, exc)

    def _told_failed(self, turn: Turn, transition: Transition, report: Report, update: Update | None) -> None:
        if update is None:
            report_lost(turn.log)
        else:
            self.note_failed(turn, transition, report)


def _not_told(turn: Turn, exc: Exception) -> None:
    """There is nothing left to try: recovery finds the event when its lease expires."""
    turn.log.error(Log.EXECUTION_BROKE, exc_info=exc)
    turn.end()


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
