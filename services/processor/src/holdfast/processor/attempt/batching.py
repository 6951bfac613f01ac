"""Events that are run together, where their handler is declared so; and each alone, where that fails."""

import time
from collections.abc import Callable, Sequence

from holdfast.domain.event import Lease
from holdfast.domain.update import Update
from holdfast.messaging.announce import Announcer
from holdfast.processor.attempt.batch import BatchEnded, Item, Outcome, Ran
from holdfast.processor.attempt.batch_transaction import BatchTransactions
from holdfast.processor.attempt.effects import ENDED
from holdfast.processor.attempt.endings import Endings
from holdfast.processor.attempt.interruption import Interrupted
from holdfast.processor.attempt.releasing import Releaser
from holdfast.processor.attempt.reporting import report_lost
from holdfast.processor.handlers.outcomes import TransactionEnded
from holdfast.processor.handlers.registry import Handler, Handlers
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = ["Batches"]


class Batches:
    """Groups events and runs the groups, from any number of threads."""

    def __init__(
        self, handlers: Handlers, transactions: BatchTransactions, announcer: Announcer, endings: Endings,
        releaser: Releaser,
    ) -> None:  # fmt: skip
        self._handlers = handlers
        self._transactions = transactions
        self._announcer = announcer
        self._endings = endings
        self._releaser = releaser

    def groups(self, leases: Sequence[Lease]) -> list[list[Lease]]:
        """Events that are to be run together (see ``Handler.batch``), the others each alone; in their order.

        One that was with a lost worker may be the reason, so it takes no others along.
        """
        groups: list[list[Lease]] = []
        unfilled: dict[str, list[Lease]] = {}
        for lease in leases:
            handler = self._handlers.find(lease.event.type)
            if handler is None or handler.batch == 1 or lease.crashes:
                groups.append([lease])
                continue
            group = unfilled.get(handler.name)
            if group is None or len(group) == handler.batch:
                group = unfilled[handler.name] = []
                groups.append(group)
            group.append(lease)
        return groups

    def run(self, items: Sequence[Item], handler: Handler, *, alone: Callable[[Lease], None]) -> None:
        """Run and settle a group; ``alone`` runs one event. Never raises for what a handler, PostgreSQL or Redis can do."""
        started, left = time.monotonic(), items
        try:
            while left:
                ran = self._transactions.run(left, handler)
                self._tell(left, ran, handler)
                left = ran.left
        except Interrupted:
            for lease, log in left:
                self._releaser.interrupted(lease, log)
        except BatchEnded as exc:
            for lease, log in exc.begun:
                self._endings.failed(TransactionEnded(ENDED), lease, handler, log, started=started)
            for lease, _ in exc.rest:
                alone(lease)
        except Exception as exc:  # noqa: BLE001 (one of them is at fault, or PostgreSQL has gone: each alone finds out)
            logging.get(__name__).warning(Log.BATCH_SPLIT, handler=handler.name, reason=type(exc).__name__)
            for lease, _ in left:
                alone(lease)

    def _tell(self, items: Sequence[Item], ran: Ran, handler: Handler) -> None:
        self._announcer.publish(list(ran.updates.values()))
        for outcome in ran.outcomes:
            self._tell_one(outcome, ran.updates.get(outcome.item.lease.event.id), handler)
        known = {item.lease.event.id for item in (*ran.left, *(outcome.item for outcome in ran.outcomes))}
        for lease, log in items:
            if lease.event.id not in known:
                report_lost(log)

    def _tell_one(self, outcome: Outcome, update: Update | None, handler: Handler) -> None:
        lease, log = outcome.item
        if update is None:
            report_lost(log)
        elif outcome.is_repeated:
            log.warning(Log.ALREADY_PROCESSED)
        elif outcome.failed is not None:
            self._endings.note_failed(outcome.transition, outcome.failed.report, lease, handler, log)
        else:
            self._endings.settled(update, lease, log, handler_name=handler.name, started=outcome.started)
