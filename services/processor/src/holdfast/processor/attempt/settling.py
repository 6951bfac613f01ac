"""Running a handler and settling its event: in one transaction, or in one after the run."""

from holdfast.domain.errors import LeaseLost
from holdfast.domain.event import Lease
from holdfast.domain.transitions import settle
from holdfast.domain.update import Update
from holdfast.processor.attempt.effects import ended_before, settle_effects
from holdfast.processor.attempt.failures import HandlerFailed
from holdfast.processor.attempt.run import Runner
from holdfast.processor.handlers.outcomes import NoHandler, TransactionEnded
from holdfast.processor.handlers.registry import Handler
from holdfast.processor.handlers.reports import Report
from holdfast.runtime.logging import Logger
from holdfast.storage import lifecycle
from holdfast.storage.database import Database
from holdfast.storage.held import has_committed
from holdfast.storage.lending import lend

__all__ = ["Settler"]

__tracebackhide__ = True


class Settler:
    """Runs and settles on the database in which effects and settling commit together."""

    def __init__(self, effects: Database, runner: Runner) -> None:
        self._effects = effects
        self._runner = runner

    def run(self, lease: Lease, handler: Handler | None, log: Logger) -> list[Update]:
        """Run the handler, if there is one, and settle; returns what is to be published.

        Raises:
            HandlerFailed, NoHandler, TransactionEnded: the attempt has failed.
            LeaseLost, AlreadyProcessed: the event is somebody else's; the effects are rolled back.
            Interrupted: the process has no time left.
            DatabaseUnavailable, StatementTooSlow: nothing is known of what was committed.
        """
        if handler is not None and handler.is_transactional:
            return self._run_in_transaction(lease, handler, log)
        with self._effects.transaction() as session:
            lifecycle.hold(session, lease)
        if handler is None:
            raise NoHandler(f"no handler for {lease.event.type}; deploy one and replay the event")
        completion = self._runner.run(handler, lease, log)
        with self._effects.transaction() as session:
            return _unless_lost(lifecycle.apply(session, [settle(lease.event.id, lease.token, completion)]))

    def checked(self, failed: HandlerFailed) -> tuple[BaseException, Report]:
        """What to record of a handler that raised: worse than its error is that it may have committed before."""
        if failed.transaction is None:
            return failed.error, failed.report
        if not has_committed(self._effects, failed.transaction):
            return failed.error, failed.report
        return TransactionEnded(), ended_before(failed.report)

    def _run_in_transaction(self, lease: Lease, handler: Handler, log: Logger) -> list[Update]:
        transaction = ""
        try:
            with self._effects.transaction() as session:
                transaction = lifecycle.hold(session, lease, timeout_seconds=handler.timeout_seconds)
                lent = lend(session, transaction)
                completion = self._runner.run(handler, lease, log, session=session, lent=lent)
                return _unless_lost(settle_effects(session, lease, completion, lent))
        except TransactionEnded:
            has_committed(self._effects, transaction)  # or prepared, which must not stay
            raise


def _unless_lost(updates: list[Update]) -> list[Update]:
    if not updates:
        raise LeaseLost("the lease was taken away while the handler ran")
    return updates
