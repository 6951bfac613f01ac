"""One event, from doorbell to settled, as named steps: claim, run, settle; or fail.

Every step commits before its update is published; whatever is lost in between is found again by maintenance.
"""

import contextlib
import random
import threading
import time
from collections.abc import Callable
from uuid import UUID

from holdfast.domain.errors import AlreadyProcessed, DatabaseUnavailable, LeaseLost, StatementTooSlow
from holdfast.domain.event import Doorbell, Lease
from holdfast.domain.state import State
from holdfast.domain.transitions import Transition, release, resettle, settle
from holdfast.domain.update import Update
from holdfast.messaging.announce import Announcer
from holdfast.processor.attempt.claiming import Claimer
from holdfast.processor.attempt.effects import ended_before, settle_effects
from holdfast.processor.attempt.heartbeat import Heartbeat, Running
from holdfast.processor.attempt.interruption import Interrupted, Interruptions
from holdfast.processor.attempt.run import HandlerFailed, Runner
from holdfast.processor.handlers.outcomes import HandlerTimeout, NoHandler, TransactionEnded, failure
from holdfast.processor.handlers.registry import Handler, Handlers
from holdfast.processor.handlers.reports import Report, report_of
from holdfast.runtime import logging
from holdfast.runtime.logging import Logger
from holdfast.runtime.telemetry import Log, Metrics
from holdfast.storage import leases, lifecycle
from holdfast.storage.database import Database
from holdfast.storage.held import has_committed
from holdfast.storage.lending import lend

__all__ = ["Executor"]

UNDECIDED = (DatabaseUnavailable, StatementTooSlow)
"""PostgreSQL did not say yes or no to a statement of ours: it is away, or a lock on a whole table stands in the way."""

OUTAGES = 3
"""Attempts at one event in which a process lost its database before it takes the handler for the cause. A statement that
kills its backend must not go round for ever."""

REMEMBERED = 1000
"""Events that met an outage: a bound on what is kept, far above what runs at once."""

GIVE_BACK_SECONDS = 0.5
"""Between two tries to give an event back to a database that is away, about."""


class Executor:
    """Executes events, one per call, from any number of threads.

    Args:
        claims: a database whose commits need not be durable.
        effects: the database in which handlers' effects and settling commit together.
        owner: names this process in leases and recorded errors.
        no_handler_seconds: how long an event waits for a processor that serves its type.
        wake: told whose turn it is once an event of an ordered subject is done with. May fail to reach anybody.
        is_spoiled: whether a handler has closed connections of this process, which is then about to end.
        is_logging_texts: log the texts of handlers' exceptions, which may quote payloads, beside their types and frames.
    """

    def __init__(
        self,
        handlers: Handlers,
        *,
        claims: Database,
        effects: Database,
        announcer: Announcer,
        owner: str,
        lease_seconds: float,
        no_handler_seconds: float = 0.0,
        draw: Callable[[], float] = random.random,
        wake: Callable[[Doorbell], None] = lambda _: None,
        is_spoiled: Callable[[], bool] = lambda: False,
        is_logging_texts: bool = False,
    ) -> None:
        self._is_logging_texts = is_logging_texts
        self._handlers = handlers
        self._claims = claims
        self._effects = effects
        self._announcer = announcer
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._draw = draw
        self._claimer = Claimer(
            handlers, claims, owner=owner, lease_seconds=lease_seconds, no_handler_seconds=no_handler_seconds,
            publish=self._announcer.publish, wake=wake,
        )  # fmt: skip
        self.is_stuck = False
        """Whether a handler hangs for good; the process should be replaced."""
        self._is_spoiled = is_spoiled
        self._outages: dict[UUID, int] = {}
        self._is_ending = threading.Event()
        self._interruptions = Interruptions()
        self._heartbeat = Heartbeat(
            self._extend, self._interruptions, lease_seconds=lease_seconds, on_stuck=self._note_stuck
        )  # fmt: skip
        self._runner = Runner(announcer, self._interruptions, self._heartbeat)

    def start(self) -> None:
        """Begin to keep leases and to enforce timeouts, and declare the ordered types."""
        self._heartbeat.start()
        with contextlib.suppress(*UNDECIDED):
            self._claimer.declare()

    def note_served(self) -> None:
        """Say, every few seconds, which of the types that events wait for are served here.

        Raises:
            DatabaseUnavailable, StatementTooSlow: the next time does.
        """
        self._claimer.note_served()

    def stop(self) -> None:
        """The last event has been executed."""
        self._heartbeat.stop()

    @property
    def is_alive(self) -> bool:
        """Whether leases are kept and timeouts enforced."""
        return self._heartbeat.is_alive

    def execute(self, event_id: UUID, version: int) -> None:
        """Do what the doorbell ``(event_id, version)`` asks for, if it is still to be done.

        Never raises for what a handler, PostgreSQL or Redis can do.
        """
        log = logging.get(__name__).bind(event_id=str(event_id))
        try:
            lease = self._claimer.claim(event_id, version)
        except UNDECIDED as exc:
            # The claim is all there was; the next doorbell or poll brings the event back.
            log.warning(Log.DATABASE_UNAVAILABLE, reason=str(exc))
            return
        if lease is None:
            Metrics.stale_doorbells.inc()
            log.debug(Log.STALE_DOORBELL, version=version)
            return
        self.run(lease)

    def claim_due(self, limit: int, *, is_suspect: bool, overdue_seconds: float) -> list[Lease]:
        """Claim up to ``limit`` events that have been due for a while, without a doorbell; each is to be :meth:`run`.

        Raises:
            DatabaseUnavailable: nothing was claimed; or it was, and the leases will expire.
        """
        return self._claimer.claim_due(limit, is_suspect=is_suspect, overdue_seconds=overdue_seconds)

    def run(self, lease: Lease) -> None:
        """Run and settle an event that was claimed. Never raises for what a handler, PostgreSQL or Redis can do."""
        event = lease.event
        log = logging.get(__name__).bind(
            event_id=str(event.id), event_type=event.type, attempt=lease.attempt, tenant=event.tenant
        )
        try:
            self._attempt(lease, log)
        except UNDECIDED as exc:
            log.warning(Log.DATABASE_UNAVAILABLE, reason=str(exc))
            if self._is_spoiled():
                return  # no outage: the event that did it would go round for ever, and take each new process along
            self._give_back(lease, self._after_outage(exc, lease), log)

    def interrupt(self) -> None:
        """End the handlers that still run; their events are given back. For a process that has no time left.

        To be repeated: an exception that is raised in a thread may get lost there, in a ``__del__`` for instance.
        """
        self._is_ending.set()
        self._heartbeat.cancel_all()
        self._interruptions.interrupt()
        self._heartbeat.cancel_statements()  # not before: a handler would take it for an error of its own

    def abandon(self) -> None:
        """Give back the events of handlers that nothing ends, whose process is to be gone right after.

        A handler whose time is up has failed. The transaction of one that has any is cut off and so rolled back.
        """
        left = self._heartbeat.running()
        for running in left:
            if running.backend is not None:
                running.backend.cut()
        outcomes = [self._outcome_of(running) for running in left]
        try:
            with self._effects.transaction() as session:
                updates = lifecycle.apply(session, outcomes, worker=self._owner)
        except UNDECIDED as exc:
            logging.get(__name__).warning(Log.DATABASE_UNAVAILABLE, reason=str(exc))
            return
        moved = {update.event_id for update in updates}
        for running, outcome in zip(left, outcomes, strict=True):
            if outcome.event_id in moved:
                _tell_abandoned(running, outcome)
        self._announcer.publish(updates)

    def _attempt(self, lease: Lease, log: Logger) -> None:
        handler = self._handlers.find(lease.event.type)
        log = log.bind(handler=handler.name if handler else None)
        started = time.monotonic()
        try:
            updates = self._run_and_settle(lease, handler, log)
        except LeaseLost:
            self._lost(log)
        except AlreadyProcessed:
            log.warning(Log.ALREADY_PROCESSED)
            self._announcer.publish(self._apply(resettle(lease.event.id, lease.token)))
        except Interrupted:
            self._release(lease, log)
        except UNDECIDED:
            raise
        except HandlerFailed as failed:
            error, report = self._checked(failed)
            self._fail(error, lease, handler, log, started=started, report=report)
        except Exception as exc:  # noqa: BLE001 (a constraint checked at the commit, say: the attempt has failed)
            self._fail(exc, lease, handler, log, started=started)
        else:
            self._settled(updates, lease, log, handler_name=handler.name if handler else "", started=started)

    def _release(self, lease: Lease, log: Logger) -> None:
        updates = self._apply(release(lease.event.id, lease.token))
        if updates:
            log.warning(Log.RELEASED)
            self._announcer.publish(updates)
        else:
            self._lost(log)

    def _outcome_of(self, running: Running) -> Transition:
        """What becomes of the event of a handler that is abandoned."""
        lease, handler, seconds = running.lease, running.handler, time.monotonic() - running.started
        if seconds < handler.timeout_seconds:
            return release(lease.event.id, lease.token)
        error = HandlerTimeout(
            f"the handler hung beyond its timeout of {handler.timeout_seconds:g} s; nothing ended it"
        )
        return failure(error, lease, handler, draw=self._draw(), duration_ms=int(seconds * 1000))

    def _run_and_settle(self, lease: Lease, handler: Handler | None, log: Logger) -> list[Update]:
        if handler is not None and handler.is_transactional:
            return self._run_in_transaction(lease, handler, log)
        with self._effects.transaction() as session:
            lifecycle.hold(session, lease)
        if handler is None:
            raise NoHandler(f"no handler for {lease.event.type}; deploy one and replay the event")
        completion = self._runner.run(handler, lease, log)
        with self._effects.transaction() as session:
            return _unless_lost(lifecycle.apply(session, [settle(lease.event.id, lease.token, completion)]))

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

    def _checked(self, failed: HandlerFailed) -> tuple[BaseException, Report]:
        """What to record of a handler that raised: worse than its error is that it may have committed before."""
        if failed.transaction is None:
            return failed.error, failed.report
        if not has_committed(self._effects, failed.transaction):
            return failed.error, failed.report
        return TransactionEnded(), ended_before(failed.report)

    def _settled(self, updates: list[Update], lease: Lease, log: Logger, *, handler_name: str, started: float) -> None:
        seconds = time.monotonic() - started
        Metrics.handler_seconds.labels(handler_name, "processed").observe(seconds)
        for update in updates:
            Metrics.end_to_end_seconds.observe((update.at - lease.event.received_at).total_seconds())
        self._announcer.publish(updates)
        log.info(Log.PROCESSED, duration_ms=int(seconds * 1000))
        self._call_next(lease)

    def _fail(
        self, exc: BaseException, lease: Lease, handler: Handler | None, log: Logger, *, started: float,
        report: Report | None = None,
    ) -> None:  # fmt: skip
        duration_ms = int((time.monotonic() - started) * 1000)
        report = report or report_of(exc, package=handler.package if handler else None)
        transition = failure(exc, lease, handler, draw=self._draw(), duration_ms=duration_ms, report=report)
        updates = self._apply(transition)
        if not updates:
            self._lost(log)
            return
        Metrics.handler_seconds.labels(handler.name if handler else "", "failed").observe(duration_ms / 1000)
        _tell_failure(report, transition, handler, log, self._is_logging_texts)
        self._announcer.publish(updates)
        if transition.to_state is State.DEAD:
            self._call_next(lease)

    def _lost(self, log: Logger) -> None:
        Metrics.lost_leases.inc()
        log.warning(Log.LEASE_LOST)

    def _after_outage(self, exc: Exception, lease: Lease) -> Transition:
        """An outage is no attempt and no crash of this worker, unless the event meets one time and again."""
        seen = self._outages.pop(lease.event.id, 0) + 1
        if seen > OUTAGES:
            handler = self._handlers.find(lease.event.type)
            return failure(exc, lease, handler, draw=self._draw(), duration_ms=0)
        self._outages[lease.event.id] = seen
        if len(self._outages) > REMEMBERED:
            self._outages.pop(next(iter(self._outages)))
        return release(lease.event.id, lease.token)

    def _give_back(self, lease: Lease, transition: Transition, log: Logger) -> None:
        """Apply the transition once the database is back. Meanwhile this thread claims nothing.

        After a lease's time it is recovery's turn.
        """
        deadline = time.monotonic() + lease.seconds
        while time.monotonic() < deadline:
            try:
                updates = self._apply(transition)
            except UNDECIDED:
                if self._is_ending.wait(GIVE_BACK_SECONDS * (0.5 + self._draw())):
                    return
            else:
                if not updates:
                    self._lost(log)
                    return
                log.info(Log.GIVEN_BACK, to_state=transition.to_state)
                self._announcer.publish(updates)
                return

    def _call_next(self, lease: Lease) -> None:
        """Wake the next event of the subject, if there is one; the poll would, later."""
        if lease.lane is not None:
            with contextlib.suppress(*UNDECIDED):
                self._claimer.call_next(lease.lane)

    def _note_stuck(self) -> None:
        self.is_stuck = True

    def _extend(self, held: list[Lease]) -> set[UUID]:
        with self._claims.transaction() as session:
            return leases.extend(session, held)

    def _apply(self, transition: Transition) -> list[Update]:
        with self._effects.transaction() as session:
            return lifecycle.apply(session, [transition], worker=self._owner)


def _unless_lost(updates: list[Update]) -> list[Update]:
    if not updates:
        raise LeaseLost("the lease was taken away while the handler ran")
    return updates


def _tell_abandoned(running: Running, outcome: Transition) -> None:
    lease, handler = running.lease, running.handler
    log = logging.get(__name__).bind(event_id=str(lease.event.id), handler=handler.name, attempt=lease.attempt)
    if outcome.error is None:
        log.warning(Log.RELEASED)
    else:
        _tell_failure(
            report_of(HandlerTimeout(outcome.error.message), package=handler.package), outcome, handler, log, False
        )


def _tell_failure(
    report: Report, transition: Transition, handler: Handler | None, log: Logger, with_texts: bool
) -> None:
    stack = report.traceback if with_texts else report.frames
    fields = {"exception": stack, "error.type": report.type} if stack else {}
    if transition.to_state is State.DEAD:
        Metrics.dead_letters.labels(report.type).inc()
        log.error(Log.DEAD_LETTER, reason=report.type, **fields)
    else:
        Metrics.retries.labels(handler.name if handler else "").inc()
        log.warning(Log.ATTEMPT_FAILED, reason=report.type, retry_in_seconds=transition.delay_seconds, **fields)
