"""Running a handler and, where it has written something, settling its event in the transaction of its effects."""

import time
from collections.abc import Sequence

from holdfast.domain.errors import LeaseLost
from holdfast.domain.transitions import Completion
from holdfast.domain.update import Update
from holdfast.processor.attempt.effects import ended_before, settle_effects
from holdfast.processor.attempt.failures import HandlerFailed
from holdfast.processor.attempt.interruption import Interruptions
from holdfast.processor.attempt.lazy_effects import LazyEffects
from holdfast.processor.attempt.run import Runner
from holdfast.processor.attempt.step_effects import StepEffects
from holdfast.processor.attempt.turn import Turn
from holdfast.processor.handlers.outcomes import NoHandler, TransactionEnded, missing_handler
from holdfast.processor.handlers.registry import Handler
from holdfast.processor.handlers.reports import Report
from holdfast.storage import lifecycle
from holdfast.storage.database import Database
from holdfast.storage.held import has_committed

__all__ = ["Settler"]

__tracebackhide__ = True


class Settler:
    """Runs and settles on the database in which effects and settling commit together."""

    def __init__(self, effects: Database, runner: Runner, interruptions: Interruptions) -> None:
        self._effects = effects
        self._runner = runner
        self._interruptions = interruptions

    def run(self, turn: Turn) -> Update | Completion:
        """Run the handler, if there is one.

        Returns the update of an event that was settled with what the handler has written; otherwise what is still to be
        settled, with that of others.

        Raises:
            HandlerFailed, NoHandler, TransactionEnded: the attempt has failed.
            LeaseLost, AlreadyProcessed: the event is somebody else's; the effects are rolled back.
            Interrupted: the process has no time left.
            DatabaseUnavailable, StatementTooSlow: nothing is known of what was committed.
        """
        handler = turn.handler
        if handler is not None and handler.is_transactional:
            return self._run_with_effects(turn, handler)
        with self._effects.transaction() as session:
            lifecycle.hold(session, turn.lease)  # what it does elsewhere is not to be done again
        if handler is None:
            raise NoHandler(missing_handler(turn.lease.event.route))
        effects = StepEffects(self._effects, self._interruptions, turn.log)
        return self._runner.run(handler, turn.lease, turn.log, effects)

    def checked(self, failed: HandlerFailed) -> tuple[BaseException, Report]:
        """What to record of a handler that raised: worse than its error is that it may have committed before."""
        if failed.transaction is None:
            return failed.error, failed.report
        if not has_committed(self._effects, failed.transaction):
            return failed.error, failed.report
        return TransactionEnded(), ended_before(failed.report)

    def _run_with_effects(self, turn: Turn, handler: Handler) -> Update | Completion:
        lease = turn.lease
        effects = LazyEffects(self._effects, lease, self._interruptions, timeout_seconds=handler.timeout_seconds)
        effects.tell = turn.tell()
        update, settling_ns = None, 0
        try:
            with effects:
                completion = self._runner.run(handler, lease, turn.log, effects)
                if effects.session is not None and effects.lent is not None:
                    settling_ns = time.time_ns()
                    moved = settle_effects(effects.session, lease, completion, effects.lent)
                    update = _unless_lost(moved.updates)
                    turn.emitted = moved.emitted
            if update is not None:
                turn.note_settled(settling_ns)
        except TransactionEnded:
            if effects.lent is not None:
                has_committed(self._effects, effects.lent.transaction)  # or prepared, which must not stay
            raise
        return completion if update is None else update


def _unless_lost(updates: Sequence[Update]) -> Update:
    if not updates:
        raise LeaseLost("the lease was taken away while the handler ran")
    return updates[0]
