"""The transaction of a batch: events of one handler, each in a savepoint and with an outcome of its own."""

import time
from collections.abc import Sequence
from uuid import UUID

from holdfast.domain.transitions import Completion, settle
from holdfast.domain.update import Update
from holdfast.processor.attempt.batch import BatchEnded, Item, Outcome, Ran, processed_before
from holdfast.processor.attempt.effects import SharedEffects
from holdfast.processor.attempt.endings import Endings
from holdfast.processor.attempt.failures import HandlerFailed
from holdfast.processor.attempt.run import Runner
from holdfast.processor.handlers.outcomes import TransactionEnded
from holdfast.processor.handlers.registry import Handler
from holdfast.storage import Session, lifecycle
from holdfast.storage.backend import Backend
from holdfast.storage.database import Database
from holdfast.storage.held import current_transaction, has_committed, kept_open
from holdfast.storage.lending import lend
from holdfast.storage.savepoints import Savepoints

__all__ = ["BatchTransactions"]

__tracebackhide__ = True

SHARE_OF_LEASE = 1 / 3
"""Of a lease's time, after which a transaction takes no further event: those that wait must not be taken for lost."""


class BatchTransactions:
    """Runs events of one handler in a transaction, from any number of threads.

    Args:
        owner: names the process in recorded errors.
    """

    def __init__(self, effects: Database, runner: Runner, endings: Endings, *, owner: str) -> None:
        self._effects = effects
        self._runner = runner
        self._endings = endings
        self._owner = owner

    def run(self, items: Sequence[Item], handler: Handler) -> Ran:
        """Run and settle events in one transaction.

        A handler that raises fails its event alone, in its savepoint. What spoils the transaction itself is raised: nothing
        of it is committed then, and each event is to be tried alone.

        Raises:
            BatchEnded: a handler has committed it. Events that had begun may not be tried again.
            Interrupted: the process has no time left.
            Exception: whatever else; nothing is known of what was committed where PostgreSQL has gone away.
        """
        transaction, begun = "", list[Item]()
        try:
            with self._effects.transaction() as session:
                # By event, as settles and claims lock rows too: two batches never wait for one another in a circle.
                held = lifecycle.hold_all(
                    session, [item.lease for item in items], timeout_seconds=handler.timeout_seconds
                )
                if not (transaction := held.transaction):
                    return Ran([], {}, [])
                effects = SharedEffects(session, lend(session, transaction), Backend(session))
                with kept_open(session):
                    outcomes, left = self._run_all(session, effects, held, items, begun, handler)
                return Ran(outcomes, self._settle(session, transaction, outcomes), left)
        except Exception as exc:
            if transaction and has_committed(self._effects, transaction):
                raise BatchEnded(begun, items[len(begun) :]) from exc
            raise

    def _run_all(
        self, session: Session, effects: SharedEffects, held: lifecycle.Held, items: Sequence[Item], begun: list[Item],
        handler: Handler,
    ) -> tuple[list[Outcome], list[Item]]:  # fmt: skip
        if handler.is_bulk:
            return self._run_list(effects, held, items, begun, handler), []
        outcomes: list[Outcome] = []
        savepoints = Savepoints(session)
        began, patience = time.monotonic(), items[0].lease.seconds * SHARE_OF_LEASE
        for number, item in enumerate(items):
            if outcomes and time.monotonic() - began > patience:
                return outcomes, list(items[number:])
            event_id = item.lease.event.id
            if event_id in held.event_ids:
                savepoints.begin()
            begun.append(item)
            if event_id in held.event_ids:
                outcomes.append(self._run_one(savepoints, effects, item, handler))
            elif event_id in held.processed:
                outcomes.append(processed_before(item))
        return outcomes, []

    def _run_list(
        self, effects: SharedEffects, held: lifecycle.Held, items: Sequence[Item], begun: list[Item],
        handler: Handler,
    ) -> list[Outcome]:  # fmt: skip
        begun += items
        before = [processed_before(item) for item in items if item.lease.event.id in held.processed]
        ours = [item for item in items if item.lease.event.id in held.event_ids]
        if not ours:
            return before
        started = time.monotonic()
        results = self._runner.run_for_all(handler, ours, effects)
        return before + [
            self._outcome(item, result, effects, handler, started) for item, result in zip(ours, results, strict=True)
        ]

    def _run_one(self, savepoints: Savepoints, effects: SharedEffects, item: Item, handler: Handler) -> Outcome:
        started = time.monotonic()
        try:
            completion = self._runner.run(handler, item.lease, item.log, effects)
        except HandlerFailed as failed:
            savepoints.undo()
            return self._outcome(item, failed, effects, handler, started)
        return self._outcome(item, completion, effects, handler, started)

    def _outcome(
        self, item: Item, result: Completion | HandlerFailed, effects: SharedEffects, handler: Handler, started: float
    ) -> Outcome:
        lease = item.lease
        if isinstance(result, HandlerFailed):
            end = self._endings.judge(result.error, lease, handler, started=started, report=result.report)
            return Outcome(item, end, result, started)
        transaction = effects.lent.transaction if effects.lent else None
        done = settle(lease.event.id, lease.token, result, transaction=transaction)
        return Outcome(item, done, None, started)

    def _settle(self, session: Session, transaction: str, outcomes: Sequence[Outcome]) -> dict[UUID, Update]:
        if current_transaction(session) != transaction:
            raise TransactionEnded
        updates = lifecycle.apply(session, [each.transition for each in outcomes], worker=self._owner)
        return {update.event_id: update for update in updates}
