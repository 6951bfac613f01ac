"""The transaction of a batch: events of one handler, each in a savepoint and with an outcome of its own."""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from holdfast.domain.event import Lease
from holdfast.domain.transitions import Completion, Transition, resettle, settle
from holdfast.domain.update import Update
from holdfast.processor.attempt.effects import Effects
from holdfast.processor.attempt.endings import Endings
from holdfast.processor.attempt.failures import HandlerFailed
from holdfast.processor.attempt.run import Runner
from holdfast.processor.handlers.outcomes import TransactionEnded
from holdfast.processor.handlers.registry import Handler
from holdfast.runtime.logging import Logger
from holdfast.storage import Session, lifecycle
from holdfast.storage.database import Database
from holdfast.storage.held import current_transaction, has_committed
from holdfast.storage.lending import Lent, lend

__all__ = ["BatchEnded", "BatchTransactions", "Item", "Outcome", "Ran"]

__tracebackhide__ = True

SHARE_OF_LEASE = 1 / 3
"""Of a lease's time, after which a transaction takes no further event: those that wait must not be taken for lost."""


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
                lent = lend(session, transaction)
                outcomes, left = self._run_all(session, lent, held, items, begun, handler)
                return Ran(outcomes, self._settle(session, transaction, outcomes), left)
        except Exception as exc:
            if transaction and has_committed(self._effects, transaction):
                raise BatchEnded(begun, items[len(begun) :]) from exc
            raise

    def _run_all(
        self,
        session: Session,
        lent: Lent,
        held: lifecycle.Held,
        items: Sequence[Item],
        begun: list[Item],
        handler: Handler,
    ) -> tuple[list[Outcome], list[Item]]:
        if handler.is_bulk:
            return self._run_list(session, lent, held, items, begun, handler), []
        outcomes: list[Outcome] = []
        began, patience = time.monotonic(), items[0].lease.seconds * SHARE_OF_LEASE
        for number, item in enumerate(items):
            if outcomes and time.monotonic() - began > patience:
                return outcomes, list(items[number:])
            begun.append(item)
            event_id = item.lease.event.id
            if event_id in held.event_ids:
                outcomes.append(self._run_one(session, lent, item, handler))
            elif event_id in held.processed:
                outcomes.append(_processed_before(item))
        return outcomes, []

    def _run_list(
        self, session: Session, lent: Lent, held: lifecycle.Held, items: Sequence[Item], begun: list[Item],
        handler: Handler,
    ) -> list[Outcome]:  # fmt: skip
        begun += items
        before = [_processed_before(item) for item in items if item.lease.event.id in held.processed]
        ours = [item for item in items if item.lease.event.id in held.event_ids]
        if not ours:
            return before
        started = time.monotonic()
        results = self._runner.run_for_all(handler, ours, Effects(session, lent))
        return before + [
            self._outcome(item, result, lent, handler, started) for item, result in zip(ours, results, strict=True)
        ]

    def _run_one(self, session: Session, lent: Lent, item: Item, handler: Handler) -> Outcome:
        started = time.monotonic()
        savepoint = session.begin_nested()
        try:
            completion = self._runner.run(handler, item.lease, item.log, Effects(session, lent))
        except HandlerFailed as failed:
            savepoint.rollback()
            return self._outcome(item, failed, lent, handler, started)
        savepoint.commit()
        session.expunge_all()  # the next event's handler begins with an empty session, as it would alone
        return self._outcome(item, completion, lent, handler, started)

    def _outcome(
        self, item: Item, result: Completion | HandlerFailed, lent: Lent, handler: Handler, started: float
    ) -> Outcome:
        lease = item.lease
        if isinstance(result, HandlerFailed):
            end = self._endings.judge(result.error, lease, handler, started=started, report=result.report)
            return Outcome(item, end, result, started)
        done = settle(lease.event.id, lease.token, result, transaction=lent.transaction)
        return Outcome(item, done, None, started)

    def _settle(self, session: Session, transaction: str, outcomes: Sequence[Outcome]) -> dict[UUID, Update]:
        if current_transaction(session) != transaction:
            raise TransactionEnded
        updates = lifecycle.apply(session, [each.transition for each in outcomes], worker=self._owner)
        return {update.event_id: update for update in updates}


def _processed_before(item: Item) -> Outcome:
    return Outcome(item, resettle(item.lease.event.id, item.lease.token), None, time.monotonic(), is_repeated=True)
