"""Running a handler and settling its event: in the transaction of its effects, or, without any, together with others."""

from holdfast.domain.errors import LeaseLost
from holdfast.domain.event import Lease
from holdfast.domain.transitions import Completion, settle
from holdfast.domain.update import Update
from holdfast.messaging.announce import Announcer
from holdfast.processor.attempt.effects import Effects, ended_before, settle_effects
from holdfast.processor.attempt.failures import HandlerFailed
from holdfast.processor.attempt.interruption import Interruptions
from holdfast.processor.attempt.joining import Joined
from holdfast.processor.attempt.lazy_effects import LazyEffects
from holdfast.processor.attempt.run import Runner
from holdfast.processor.handlers.outcomes import NoHandler, TransactionEnded
from holdfast.processor.handlers.registry import Handler
from holdfast.processor.handlers.reports import Report
from holdfast.runtime.logging import Logger
from holdfast.storage import lifecycle
from holdfast.storage.database import Database
from holdfast.storage.held import has_committed

__all__ = ["Settler"]

__tracebackhide__ = True


class Settler:
    """Runs and settles on the database in which effects and settling commit together."""

    def __init__(
        self, effects: Database, runner: Runner, interruptions: Interruptions, joined: Joined, announcer: Announcer
    ) -> None:
        self._effects = effects
        self._runner = runner
        self._interruptions = interruptions
        self._joined = joined
        self._announcer = announcer

    def run(self, lease: Lease, handler: Handler | None, log: Logger) -> Update:
        """Run the handler, if there is one, and settle; returns the update, which is published.

        Raises:
            HandlerFailed, NoHandler, TransactionEnded: the attempt has failed.
            LeaseLost, AlreadyProcessed: the event is somebody else's; the effects are rolled back.
            Interrupted: the process has no time left.
            DatabaseUnavailable, StatementTooSlow: nothing is known of what was committed.
        """
        if handler is not None and handler.is_transactional:
            return self._run_with_effects(lease, handler, log)
        with self._effects.transaction() as session:
            lifecycle.hold(session, lease)  # what it does elsewhere is not to be done again
        if handler is None:
            raise NoHandler(f"no handler for {lease.event.type}; deploy one and replay the event")
        return self._settle_joined(lease, self._runner.run(handler, lease, log, Effects()))

    def checked(self, failed: HandlerFailed) -> tuple[BaseException, Report]:
        """What to record of a handler that raised: worse than its error is that it may have committed before."""
        if failed.transaction is None:
            return failed.error, failed.report
        if not has_committed(self._effects, failed.transaction):
            return failed.error, failed.report
        return TransactionEnded(), ended_before(failed.report)

    def _run_with_effects(self, lease: Lease, handler: Handler, log: Logger) -> Update:
        effects = LazyEffects(self._effects, lease, self._interruptions, timeout_seconds=handler.timeout_seconds)
        update = None
        try:
            with effects:
                completion = self._runner.run(handler, lease, log, effects)
                if effects.session is not None and effects.lent is not None:
                    update = _unless_lost(settle_effects(effects.session, lease, completion, effects.lent))
        except TransactionEnded:
            if effects.lent is not None:
                has_committed(self._effects, effects.lent.transaction)  # or prepared, which must not stay
            raise
        if update is None:
            return self._settle_joined(lease, completion)
        self._announcer.publish([update])
        return update

    def _settle_joined(self, lease: Lease, completion: Completion) -> Update:
        update = self._joined.apply(settle(lease.event.id, lease.token, completion))
        return _unless_lost([update] if update else [])


def _unless_lost(updates: list[Update]) -> Update:
    if not updates:
        raise LeaseLost("the lease was taken away while the handler ran")
    return updates[0]
