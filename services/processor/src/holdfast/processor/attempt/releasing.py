"""Giving events back whose attempts ended through no fault of theirs: the process has to go, or its database is away."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from holdfast.domain.errors import DatabaseUnavailable, StatementTooSlow
from holdfast.domain.event import Doorbell, Lease
from holdfast.domain.transitions import Transition, cancel, release
from holdfast.domain.update import Update
from holdfast.messaging.announce import Announcer
from holdfast.processor.attempt.abandoning import abandon
from holdfast.processor.attempt.heartbeat import Running
from holdfast.processor.attempt.reporting import report_lost
from holdfast.processor.attempt.turn import Turn, fields_of
from holdfast.processor.handlers.outcomes import failure
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
            named = logging.about_events([each.event.id for each in leases])
            logging.get(__name__).warning(Log.DATABASE_UNAVAILABLE, reason=str(exc), **named)
            return
        suspects = {lease.event.id for lease in leases if lease.crashes}
        self._announcer.publish(updates)
        self._announcer.ring([Doorbell.of(each, is_suspect=each.event_id in suspects) for each in updates])
        logging.get(__name__).info(
            Log.NOT_BEGUN, count=len(updates), **logging.about_events([each.event_id for each in updates])
        )

    def interrupted(self, turn: Turn) -> None:
        """The process has no time left.

        Raises:
            DatabaseUnavailable, StatementTooSlow: it is not given back, and the turn not ended.
        """
        self.all_interrupted([turn])

    def all_interrupted(self, turns: Sequence[Turn]) -> None:
        """:meth:`interrupted` for several, in one transaction.

        Raises:
            DatabaseUnavailable, StatementTooSlow: none is given back, and no turn ended.
        """
        updates = self._apply(*(release(turn.lease.event.id, turn.lease.token) for turn in turns))
        self._announcer.publish(updates)
        released = {update.event_id for update in updates}
        for turn in turns:
            if turn.lease.event.id in released:
                turn.log.warning(Log.RELEASED)
            else:
                report_lost(turn.log)
            turn.end()

    def undecided(self, exc: Exception, turns: Sequence[Turn]) -> None:
        """The database did not say what became of the attempts: give the events back once it does, and end the turns.

        Meanwhile nothing is claimed in their place. After a lease's time it is recovery's turn.
        """
        transitions = {turn.lease.event.id: self._after_outage(exc, turn) for turn in turns}
        deadline = time.monotonic() + max(turn.lease.seconds for turn in turns)
        try:
            while time.monotonic() < deadline:
                try:
                    updates = self._apply(*transitions.values())
                except UNDECIDED:
                    if self._is_over.wait(GIVE_BACK_SECONDS * (0.5 + self._draw())):
                        return
                else:
                    self._note_given_back(updates, turns, transitions)
                    return
        finally:
            for turn in turns:
                turn.end()

    def abandoned(self, left: Sequence[Running]) -> None:
        """Those of handlers that nothing ends, whose process is to be gone right after."""
        try:
            updates = abandon(left, self._effects, owner=self._owner, draw=self._draw)
        except UNDECIDED as exc:
            named = logging.about_events([each.lease.event.id for each in left])
            logging.get(__name__).warning(Log.DATABASE_UNAVAILABLE, reason=str(exc), **named)
            return
        self._announcer.publish(updates)

    def cancelled(self, running: Running, by: Mapping[UUID, str]) -> list[UUID]:
        """End events that operators have cancelled (``by`` whom), without their handler, which nothing reaches.

        The handler's transaction is cut off and so rolled back. Returns the lanes of those that moved.
        """
        name, duration_ms = running.handler.name, int((time.monotonic() - running.started) * 1000)
        leases = {lease.event.id: lease for lease in running.leases if lease.event.id in by}
        if running.backend is not None:
            running.backend.cut()
        try:
            updates = self._apply(*(
                cancel(event_id, lease.token, by=by[event_id], handler=name, duration_ms=duration_ms)
                for event_id, lease in leases.items()
            ))  # fmt: skip
        except UNDECIDED as exc:  # recovery does it, when the lease expires
            logging.get(__name__).warning(
                Log.DATABASE_UNAVAILABLE, reason=str(exc), **logging.about_events(list(leases))
            )
            return []
        self._announcer.publish(updates)
        ended = [leases[update.event_id] for update in updates]
        for lease in ended:
            logging.get(__name__).warning(Log.CANCELLED_UNREACHED, **fields_of(lease, running.handler))
        return [lease.lane for lease in ended if lease.lane is not None]

    def _after_outage(self, exc: Exception, turn: Turn) -> Transition:
        """An outage is no attempt and no crash of this worker, unless the event meets one time and again."""
        lease = turn.lease
        seen = self._outages.pop(lease.event.id, 0) + 1
        if seen > OUTAGES:
            return failure(exc, lease, turn.handler, draw=self._draw(), duration_ms=0)
        self._outages[lease.event.id] = seen
        if len(self._outages) > REMEMBERED:
            self._outages.pop(next(iter(self._outages)))
        return release(lease.event.id, lease.token)

    def _note_given_back(
        self, updates: list[Update], turns: Sequence[Turn], transitions: Mapping[UUID, Transition]
    ) -> None:
        given = {update.event_id for update in updates}
        for turn in turns:
            event_id = turn.lease.event.id
            if event_id in given:
                turn.log.info(Log.GIVEN_BACK, to_state=transitions[event_id].to_state)
            else:
                report_lost(turn.log)
        self._announcer.publish(updates)

    def _apply(self, *transitions: Transition) -> list[Update]:
        return self._effects.call(lifecycle.apply, transitions, worker=self._owner)
