"""How attempts end: each end is a transition that is applied, logged, counted and published."""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from uuid import UUID

from holdfast.domain.errors import DatabaseUnavailable, StatementTooSlow
from holdfast.domain.event import Lease
from holdfast.domain.state import State
from holdfast.domain.transitions import Transition, release, resettle
from holdfast.domain.update import Update
from holdfast.messaging.announce import Announcer
from holdfast.processor.attempt.abandoning import abandon
from holdfast.processor.attempt.claiming import Claimer
from holdfast.processor.attempt.heartbeat import Running
from holdfast.processor.attempt.reporting import report_failure
from holdfast.processor.handlers.outcomes import failure
from holdfast.processor.handlers.registry import Handler
from holdfast.processor.handlers.reports import Report, report_of
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log, Metrics
from holdfast.storage import lifecycle
from holdfast.storage.database import Database

__all__ = ["UNDECIDED", "Endings"]

UNDECIDED = (DatabaseUnavailable, StatementTooSlow)
"""PostgreSQL did not say yes or no to a statement of ours: it is away, or a lock on a whole table stands in the way."""

OUTAGES = 3
"""Attempts at one event in which a process lost its database before it takes the handler for the cause. A statement that
kills its backend must not go round for ever."""

REMEMBERED = 1000
"""Events that met an outage: a bound on what is kept, far above what runs at once."""

GIVE_BACK_SECONDS = 0.5
"""Between two tries to give an event back to a database that is away, about."""


class Endings:
    """Ends attempts, from any number of threads. What is announced is announced after its commit."""

    def __init__(
        self, effects: Database, announcer: Announcer, claimer: Claimer, *, owner: str, draw: Callable[[], float] | None,
        with_texts: bool,
    ) -> None:  # fmt: skip
        self._effects = effects
        self._announcer = announcer
        self._claimer = claimer
        self._owner = owner
        self._draw = draw or random.random
        self._with_texts = with_texts
        self._outages: dict[UUID, int] = {}
        self.is_over = threading.Event()
        """Set when the process has no time left: nobody waits for a database any more."""

    def settled(
        self, updates: list[Update], lease: Lease, log: logging.Logger, *, handler_name: str, started: float
    ) -> None:
        """The event is processed."""
        seconds = time.monotonic() - started
        Metrics.handler_seconds.labels(handler_name, "processed").observe(seconds)
        for update in updates:
            Metrics.end_to_end_seconds.observe((update.at - lease.event.received_at).total_seconds())
        self._announcer.publish(updates)
        log.info(Log.PROCESSED, duration_ms=int(seconds * 1000))
        self._call_next(lease)

    def failed(
        self, exc: BaseException, lease: Lease, handler: Handler | None, log: logging.Logger, *, started: float,
        report: Report | None = None,
    ) -> None:  # fmt: skip
        """The attempt has failed: it is tried again, or the event is dead."""
        duration_ms = int((time.monotonic() - started) * 1000)
        report = report or report_of(exc, package=handler.package if handler else None)
        transition = failure(exc, lease, handler, draw=self._draw(), duration_ms=duration_ms, report=report)
        updates = self._apply(transition)
        if not updates:
            self.lost(log)
            return
        Metrics.handler_seconds.labels(handler.name if handler else "", "failed").observe(duration_ms / 1000)
        report_failure(report, transition, handler, log, with_texts=self._with_texts)
        self._announcer.publish(updates)
        if transition.to_state is State.DEAD:
            self._call_next(lease)

    def lost(self, log: logging.Logger) -> None:
        """The lease was given to another worker."""
        Metrics.lost_leases.inc()
        log.warning(Log.LEASE_LOST)

    def already_processed(self, lease: Lease, log: logging.Logger) -> None:
        """The processed-event log has the event; its state follows."""
        log.warning(Log.ALREADY_PROCESSED)
        self._announcer.publish(self._apply(resettle(lease.event.id, lease.token)))

    def interrupted(self, lease: Lease, log: logging.Logger) -> None:
        """The process has no time left: the event is given back."""
        updates = self._apply(release(lease.event.id, lease.token))
        if updates:
            log.warning(Log.RELEASED)
            self._announcer.publish(updates)
        else:
            self.lost(log)

    def undecided(self, exc: Exception, lease: Lease, handler: Handler | None, log: logging.Logger) -> None:
        """The database did not say what became of the attempt: give the event back once it does."""
        self._give_back(lease, self._after_outage(exc, lease, handler), log)

    def abandoned(self, left: Sequence[Running]) -> None:
        """Give back the events of handlers that nothing ends, whose process is to be gone right after."""
        try:
            updates = abandon(left, self._effects, owner=self._owner, draw=self._draw)
        except UNDECIDED as exc:
            logging.get(__name__).warning(Log.DATABASE_UNAVAILABLE, reason=str(exc))
            return
        self._announcer.publish(updates)

    def _after_outage(self, exc: Exception, lease: Lease, handler: Handler | None) -> Transition:
        """An outage is no attempt and no crash of this worker, unless the event meets one time and again."""
        seen = self._outages.pop(lease.event.id, 0) + 1
        if seen > OUTAGES:
            return failure(exc, lease, handler, draw=self._draw(), duration_ms=0)
        self._outages[lease.event.id] = seen
        if len(self._outages) > REMEMBERED:
            self._outages.pop(next(iter(self._outages)))
        return release(lease.event.id, lease.token)

    def _give_back(self, lease: Lease, transition: Transition, log: logging.Logger) -> None:
        """Apply the transition once the database is back. Meanwhile this thread claims nothing.

        After a lease's time it is recovery's turn.
        """
        deadline = time.monotonic() + lease.seconds
        while time.monotonic() < deadline:
            try:
                updates = self._apply(transition)
            except UNDECIDED:
                if self.is_over.wait(GIVE_BACK_SECONDS * (0.5 + self._draw())):
                    return
            else:
                if not updates:
                    self.lost(log)
                    return
                log.info(Log.GIVEN_BACK, to_state=transition.to_state)
                self._announcer.publish(updates)
                return

    def _call_next(self, lease: Lease) -> None:
        """Wake the next event of the subject, if there is one; the poll would, later."""
        if lease.lane is not None:
            with contextlib.suppress(*UNDECIDED):
                self._claimer.call_next(lease.lane)

    def _apply(self, transition: Transition) -> list[Update]:
        return self._effects.call(lifecycle.apply, [transition], worker=self._owner)
