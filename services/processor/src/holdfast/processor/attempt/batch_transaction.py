"""The transaction of a batch: events of one handler, each in a savepoint and with an outcome of its own."""

import time
from collections.abc import Sequence

from holdfast.domain.transitions import Completion
from holdfast.processor.attempt.batch import (
    NOTHING_RAN,
    BatchEnded,
    Outcome,
    Ran,
    processed_before,
    processed_now,
    settle_all,
)
from holdfast.processor.attempt.effects import SharedEffects
from holdfast.processor.attempt.endings import Endings
from holdfast.processor.attempt.failures import HandlerFailed
from holdfast.processor.attempt.run import Runner
from holdfast.processor.attempt.turn import Turn
from holdfast.processor.handlers.registry import Handler
from holdfast.storage import Session, leases, lifecycle
from holdfast.storage.backend import Backend
from holdfast.storage.database import Database
from holdfast.storage.held import has_committed
from holdfast.storage.kept import kept_open
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

    def run(self, turns: Sequence[Turn], handler: Handler) -> Ran:
        """Run and settle events in one transaction.

        A handler that raises fails its event alone, in its savepoint. What spoils the transaction itself is raised: nothing
        of it is committed then, and each event is to be tried alone.

        Raises:
            BatchEnded: a handler has committed it. Events that had begun may not be tried again.
            Interrupted: the process has no time left.
            Exception: whatever else; nothing is known of what was committed where PostgreSQL has gone away.
        """
        transaction, begun = "", list[Turn]()
        try:
            with self._effects.transaction() as session:
                # By event, as settles and claims lock rows too: two batches never wait for one another in a circle.
                held = lifecycle.hold_all(
                    session, [turn.lease for turn in turns], timeout_seconds=handler.timeout_seconds
                )
                if not (transaction := held.transaction):
                    return NOTHING_RAN
                lent = lend(session, transaction)
                effects = SharedEffects(session, lent, Backend(session))
                with kept_open(session):
                    outcomes, left = self._run_all(session, effects, held, turns, begun, handler)
                settling_ns = time.time_ns()
                moved = settle_all(session, transaction, outcomes, worker=self._owner)
                if left:
                    # Their rows are locked until the commit; from then on their leases have to keep them.
                    leases.extend(session, [turn.lease for turn in left])
                lent.renew_at_commit()
            for outcome in outcomes:
                outcome.turn.note_settled(settling_ns)
            return Ran(outcomes, moved, left)
        except Exception as exc:
            if transaction and has_committed(self._effects, transaction):
                raise BatchEnded(begun, turns[len(begun) :]) from exc
            raise

    def _run_all(
        self, session: Session, effects: SharedEffects, held: lifecycle.Held, turns: Sequence[Turn], begun: list[Turn],
        handler: Handler,
    ) -> tuple[list[Outcome], list[Turn]]:  # fmt: skip
        if handler.is_bulk:
            return self._run_list(effects, held, turns, begun, handler), []
        outcomes: list[Outcome] = []
        savepoints = Savepoints(session)
        began, patience = time.monotonic(), turns[0].lease.seconds * SHARE_OF_LEASE
        for number, turn in enumerate(turns):
            if outcomes and time.monotonic() - began > patience:
                return outcomes, list(turns[number:])
            event_id = turn.lease.event.id
            if event_id in held.event_ids:
                savepoints.begin()
            begun.append(turn)
            if event_id in held.event_ids:
                outcomes.append(self._run_one(savepoints, effects, turn, handler))
            elif event_id in held.processed:
                outcomes.append(processed_before(turn))
        return outcomes, []

    def _run_list(
        self, effects: SharedEffects, held: lifecycle.Held, turns: Sequence[Turn], begun: list[Turn],
        handler: Handler,
    ) -> list[Outcome]:  # fmt: skip
        begun += turns
        before = [processed_before(turn) for turn in turns if turn.lease.event.id in held.processed]
        ours = [turn for turn in turns if turn.lease.event.id in held.event_ids]
        if not ours:
            return before
        for turn in ours:
            turn.started = time.monotonic()
        # A statement for all of them is told once, with the first of them that anybody follows.
        effects.tell = next(filter(None, (turn.tell() for turn in ours)), None)
        results = self._runner.run_for_all(handler, ours, effects)
        return before + [self._outcome(turn, result, effects) for turn, result in zip(ours, results, strict=True)]

    def _run_one(self, savepoints: Savepoints, effects: SharedEffects, turn: Turn, handler: Handler) -> Outcome:
        turn.started = time.monotonic()
        effects.tell = turn.tell()
        try:
            with turn.current():
                completion = self._runner.run(handler, turn.lease, turn.log, effects)
        except HandlerFailed as failed:
            savepoints.undo()
            return self._outcome(turn, failed, effects)
        return self._outcome(turn, completion, effects)

    def _outcome(self, turn: Turn, result: Completion | HandlerFailed, effects: SharedEffects) -> Outcome:
        if isinstance(result, HandlerFailed):
            return Outcome(turn, self._endings.judge(turn, result.error, result.report), result)
        return processed_now(turn, result, effects.lent.transaction if effects.lent else None)
