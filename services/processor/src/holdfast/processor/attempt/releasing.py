"""Giving events back whose attempts ended through no fault of theirs: the process has to go, or its database is away."""

import threading
import time
from collections.abc import Callable, Sequence
from uuid import UUID

from holdfast.domain.errors import DatabaseUnavailable, StatementTooSlow
from holdfast.domain.event import Doorbell, Lease
from holdfast.domain.transitions import Transition, release
from holdfast.domain.update import Update
from holdfast.messaging.announce import Announcer
from holdfast.processor.attempt.abandoning import abandon
from holdfast.processor.attempt.heartbeat import Running
from holdfast.processor.attempt.reporting import report_lost
from holdfast.processor.handlers.outcomes import failure
from holdfast.processor.handlers.registry import Handler
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log
from holdfast.storage import lifecycle
from holdfast.storage.database import Database

__all__ = ["UNDECIDED", "Releaser"]

UNDECIDED = (DatabaseUnavailable, StatementTooSlow)
"""PostgreSQL did not say yes or no to a statement of ours: it is away, or a lock on a whole table stands in the way."""

OUTAGES = 3
"""Attempts at one event in which a process lost its database before it takes the handler for the cause. A statement that
kills its backend must not go round for ever."""

REMEMBERED = 1000
"""Events that met an outage: a bound on what is kept, far above what runs at once."""

GIVE_BACK_SECONDS = 0.5
"""Between two tries to give an event back to a database that is away, about."""


class Releaser:
    """Gives back from any number of threads. What is announced is announced after its commit."""

    def __init__(self, effects: Database, announcer: Announcer, *, owner: str, draw: Callable[[], float]) -> None:
        self._effects = effects
        self._announcer = announcer
        self._owner = owner
        self._draw = draw
        self._outages: dict[UUID, int] = {}
        self._is_over = threading.Event()

    def hurry(self) -> None:
        """The process has no time left: nobody waits for a database any more."""
        self._is_over.set()

    def unbegun(self, leases: Sequence[Lease]) -> None:
        """They waited for a thread for too long, or the process has to go: for another one to take, now."""
        try:
            updates = self._effects.call(lifecycle.apply, [release(each.event.id, each.token) for each in leases])
        except UNDECIDED as exc:
            logging.get(__name__).warning(Log.DATABASE_UNAVAILABLE, reason=str(exc))
            return
        suspects = {lease.event.id for lease in leases if lease.crashes}
        self._announcer.publish(updates)
        self._announcer.ring([Doorbell(each.event_id, each.version, each.event_id in suspects) for each in updates])
        logging.get(__name__).info(Log.NOT_BEGUN, count=len(updates))

    def interrupted(self, lease: Lease, log: logging.Logger) -> None:
        """The process has no time left."""
        updates = self._apply(release(lease.event.id, lease.token))
        if updates:
            log.warning(Log.RELEASED)
            self._announcer.publish(updates)
        else:
            report_lost(log)

    def undecided(self, exc: Exception, lease: Lease, handler: Handler | None, log: logging.Logger) -> None:
        """The database did not say what became of the attempt: give the event back once it does.

        Meanwhile this thread claims nothing. After a lease's time it is recovery's turn.
        """
        transition = self._after_outage(exc, lease, handler)
        deadline = time.monotonic() + lease.seconds
        while time.monotonic() < deadline:
            try:
                updates = self._apply(transition)
            except UNDECIDED:
                if self._is_over.wait(GIVE_BACK_SECONDS * (0.5 + self._draw())):
                    return
            else:
                self._note_given_back(updates, transition, log)
                return

    def abandoned(self, left: Sequence[Running]) -> None:
        """Those of handlers that nothing ends, whose process is to be gone right after."""
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

    def _note_given_back(self, updates: list[Update], transition: Transition, log: logging.Logger) -> None:
        if not updates:
            report_lost(log)
            return
        log.info(Log.GIVEN_BACK, to_state=transition.to_state)
        self._announcer.publish(updates)

    def _apply(self, transition: Transition) -> list[Update]:
        return self._effects.call(lifecycle.apply, [transition], worker=self._owner)
