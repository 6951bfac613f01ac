"""Events that are run together, where their handler is declared so; and each alone, where that fails."""

import time
from collections.abc import Callable, Sequence

from holdfast.domain.event import Lease
from holdfast.domain.state import FINISHED
from holdfast.domain.update import Update
from holdfast.messaging.announce import Announcer
from holdfast.processor.attempt.batch import BatchEnded, Outcome, Ran
from holdfast.processor.attempt.batch_transaction import BatchTransactions
from holdfast.processor.attempt.effects import ENDED
from holdfast.processor.attempt.endings import Endings
from holdfast.processor.attempt.interruption import Interrupted
from holdfast.processor.attempt.releasing import UNDECIDED, Releaser
from holdfast.processor.attempt.reporting import report_lost
from holdfast.processor.attempt.turn import Turn
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
            handler = self._handler_of(lease)
            if handler is None:
                groups.append([lease])
                continue
            group = unfilled.get(handler.name)
            if group is None or len(group) == handler.batch:
                group = unfilled[handler.name] = []
                groups.append(group)
            group.append(lease)
        return groups

    def room(self, leases: Sequence[Lease]) -> int:
        """How many more events may be run together with those of a group."""
        handler = self._handler_of(leases[0])
        return handler.batch - len(leases) if handler is not None else 0

    def fits(self, leases: Sequence[Lease], others: Sequence[Lease]) -> bool:
        """Whether the events of two groups may be run together."""
        return len(others) <= self.room(leases) and self._handler_of(others[0]) is self._handler_of(leases[0])

    def _handler_of(self, lease: Lease) -> Handler | None:
        """Of a lease that is run together with others; ``None`` for those that are run alone."""
        handler = self._handlers.find(lease.event.route)
        return None if handler is None or handler.batch == 1 or lease.crashes else handler

    def run(self, turns: Sequence[Turn], handler: Handler, *, alone: Callable[[Turn], None]) -> None:
        """Run and settle a group; ``alone`` runs one event. Never raises for what a handler, PostgreSQL or Redis can do."""
        left = turns
        try:
            while left:
                ran = self._transactions.run(left, handler)
                self._tell(left, ran)
                left = ran.left
        except Interrupted:
            for turn in left:
                self._give_back(turn)
        except BatchEnded as exc:
            for turn in exc.begun:
                self._endings.failed(turn, TransactionEnded(ENDED))
            for turn in exc.rest:
                alone(turn)
        except Exception as exc:  # noqa: BLE001 (one of them is at fault, or PostgreSQL has gone: each alone finds out)
            named = logging.about_events([turn.lease.event.id for turn in left])
            logging.get(__name__).warning(Log.BATCH_SPLIT, handler=handler.name, reason=type(exc).__name__, **named)
            for turn in left:
                alone(turn)

    def _give_back(self, turn: Turn) -> None:
        try:
            self._releaser.interrupted(turn)
        except UNDECIDED as exc:
            turn.log.warning(Log.DATABASE_UNAVAILABLE, reason=str(exc))
            turn.end()

    def _tell(self, turns: Sequence[Turn], ran: Ran) -> None:
        began_ns = time.time_ns()
        self._announcer.publish(ran.moved.all_updates)
        self._announcer.ring(ran.moved.doorbells)
        updates = {update.event_id: update for update in ran.moved.updates}
        for outcome in ran.outcomes:
            outcome.turn.note_published(began_ns)
        for outcome in ran.outcomes:
            self._tell_one(outcome, updates.get(outcome.turn.lease.event.id))
        known = {turn.lease.event.id for turn in (*ran.left, *(outcome.turn for outcome in ran.outcomes))}
        for turn in turns:
            if turn.lease.event.id not in known:
                report_lost(turn.log)
                turn.end()
        self._endings.call_next(*(each.turn for each in ran.outcomes if each.transition.to_state in FINISHED))
        self._endings.free_limits(*(each.turn for each in ran.outcomes))
        for outcome in ran.outcomes:
            outcome.turn.end()

    def _tell_one(self, outcome: Outcome, update: Update | None) -> None:
        turn = outcome.turn
        if update is None:
            report_lost(turn.log)
        elif outcome.is_repeated:
            turn.log.warning(Log.ALREADY_PROCESSED)
        elif outcome.failed is not None:
            self._endings.note_failed(turn, outcome.transition, outcome.failed.report)
        else:
            self._endings.note_processed(turn, update)
