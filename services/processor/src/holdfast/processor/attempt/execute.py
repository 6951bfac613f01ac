"""Events, from doorbell to settled, as named steps: claim, run, settle; or fail.

Every step commits before its update is published; whatever is lost in between is found again by maintenance.
"""

import random
import threading
import time
from collections.abc import Callable, Collection, Sequence

from holdfast.domain.errors import AlreadyProcessed, LeaseLost
from holdfast.domain.event import Doorbell, Lease
from holdfast.domain.transitions import Completion
from holdfast.messaging.announce import Announcer
from holdfast.processor.attempt.failures import HandlerFailed
from holdfast.processor.attempt.interruption import Interrupted
from holdfast.processor.attempt.parts import parts
from holdfast.processor.attempt.releasing import UNDECIDED
from holdfast.processor.attempt.reporting import report_lost
from holdfast.processor.attempt.turn import Turn, after_all
from holdfast.processor.handlers.registry import Handlers
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log, Metrics
from holdfast.storage.database import Database

__all__ = ["Executor"]


class Executor:
    """Executes events, from any number of threads.

    Args:
        claims: a database whose commits need not be durable.
        effects: the database in which handlers' effects and settling commit together.
        owner: names this process in leases and recorded errors.
        no_handler_seconds: how long an event waits for a processor that serves its type.
        wake: told whose turn it is once an event of an ordered subject is done with. May fail to reach anybody.
        is_spoiled: whether a handler has closed connections of this process, which is then about to end.
        pools: of which handlers run here.
        is_async_full: whether events of ``async def`` handlers are to be left where they are.
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
        is_async_full: Callable[[], bool] = lambda: False,
        is_logging_texts: bool = False,
        pools: Collection[str] = ("",),
    ) -> None:
        self._handlers = handlers
        self.is_stuck = False
        """Whether a handler hangs for good; the process should be replaced."""
        self._is_spoiled = is_spoiled
        made = parts(
            handlers, claims=claims, effects=effects, announcer=announcer, owner=owner, lease_seconds=lease_seconds,
            no_handler_seconds=no_handler_seconds, draw=draw, wake=wake, on_stuck=self._note_stuck,
            undecided=self._undecided, is_async_full=is_async_full, is_logging_texts=is_logging_texts, pools=pools,
        )  # fmt: skip
        self._fan_out = made.fan_out
        self._claimer, self._interruptions, self._heartbeat = made.claimer, made.interruptions, made.heartbeat
        self._cancels = made.cancels
        self.running = made.heartbeat.running
        """Every handler that is at work now; of events that run together the first one."""
        self._settler, self._endings, self._releaser = made.settler, made.endings, made.releaser
        self._joined, self._batches, self._coroutines = made.joined, made.batches, made.coroutines

    def start(self) -> None:
        """Begin to keep leases, to enforce timeouts and to look for cancelled events, and declare the ordered types."""
        self._heartbeat.start()
        self._cancels.start()
        self._coroutines.start()
        try:
            self._claimer.declare()
        except UNDECIDED:
            return  # types are then declared as they are met

    def note_served(self) -> None:
        """Say, every few seconds, which of the types that events wait for are served here.

        Raises:
            DatabaseUnavailable, StatementTooSlow: the next time does.
        """
        self._claimer.note_served()

    def stop(self) -> None:
        """The last event has been executed."""
        self._cancels.stop()
        self._coroutines.stop()
        self._heartbeat.stop()

    @property
    def is_alive(self) -> bool:
        """Whether leases are kept, timeouts enforced, cancelled events ended, and the event loop runs."""
        return self._heartbeat.is_alive and self._cancels.is_alive and self._coroutines.is_alive

    def claim(self, doorbells: Sequence[Doorbell]) -> list[Lease]:
        """Lease the events of doorbells that are still to be done; each is to be :meth:`run`.

        Never raises for what PostgreSQL or Redis can do.
        """
        log = logging.get(__name__)
        try:
            leases = self._claimer.claim(doorbells)
        except UNDECIDED as exc:
            # The claim is all there was; the next doorbells or polls bring the events back.
            named = logging.about_events([each.event_id for each in doorbells])
            log.warning(Log.DATABASE_UNAVAILABLE, reason=str(exc), **named)
            return []
        if stale := len(doorbells) - len(leases):
            Metrics.stale_doorbells.inc(stale)
            if logging.is_debugging():
                claimed = {lease.event.id for lease in leases}
                missed = [each.event_id for each in doorbells if each.event_id not in claimed]
                log.debug(Log.STALE_DOORBELL, count=stale, **logging.about_events(missed))
        return leases

    def give_back(self, leases: Sequence[Lease]) -> None:
        """Give up leases of events that were not begun. Never raises for what PostgreSQL or Redis can do."""
        self._releaser.unbegun(leases)

    def claim_due(
        self, limit: int, *, is_suspect: bool, overdue_seconds: float, least_priority: int = 0
    ) -> list[Lease]:
        """Claim up to ``limit`` events that have been due for a while, without a doorbell; each is to be :meth:`run`.

        Raises:
            DatabaseUnavailable: nothing was claimed; or it was, and the leases will expire.
        """
        return self._claimer.claim_due(
            limit, is_suspect=is_suspect, overdue_seconds=overdue_seconds, least_priority=least_priority
        )

    def next_wake(self) -> float | None:
        """When to search next for events that wait for a rate, in seconds of the monotonic clock."""
        return self._claimer.next_wake()

    def is_any_due(self, *, is_suspect: bool, overdue_seconds: float) -> bool:
        """Whether :meth:`claim_due` may find an event: a look, cheaper than a claim.

        Raises:
            DatabaseUnavailable, StatementTooSlow: not known.
        """
        return self._claimer.is_any_due(is_suspect=is_suspect, overdue_seconds=overdue_seconds)

    def groups(self, leases: Sequence[Lease]) -> list[list[Lease]]:
        """Events that are to be run together, the others each alone; in their order."""
        return self._batches.groups(leases)

    def room(self, leases: Sequence[Lease]) -> int:
        """How many more events may be run together with those of a group."""
        return self._batches.room(leases)

    def fits(self, leases: Sequence[Lease], others: Sequence[Lease]) -> bool:
        """Whether the events of two groups may be run together."""
        return self._batches.fits(leases, others)

    def is_async(self, lease: Lease) -> bool:
        """Whether the event's handler is ``async def``: it is to :meth:`begin`, and needs no thread."""
        handler = self._handlers.find(lease.event.route)
        return handler is not None and handler.is_async

    def begin(self, leases: Sequence[Lease], end: Callable[[], object]) -> None:
        """Begin with events of ``async def`` handlers; returns at once. ``end`` is called for each, when it has ended.

        Never raises for what a handler, PostgreSQL or Redis can do.
        """
        in_time = self._in_time(leases)
        for _ in range(len(leases) - len(in_time)):
            end()
        turns = [Turn.of(lease, self._handlers.find(lease.event.route), end) for lease in in_time]
        try:
            if in_time:
                self._fan_out.make(in_time)
                self._coroutines.begin(turns)
        except UNDECIDED as exc:
            self._undecided(exc, turns)

    def run_group(self, leases: Sequence[Lease], end: Callable[[], object]) -> None:
        """Run the events of a group; ``end`` is called once, when all of them have ended, from whatever thread.

        Follow with :meth:`settle` or :meth:`settle_beside`. Never raises for what a handler, PostgreSQL or Redis can do.
        """
        leases = self._in_time(leases)
        if not leases:
            end()
            return
        handler = self._handlers.find(leases[0].event.route)
        if handler is not None and handler.is_async:
            self.begin(leases, end if len(leases) == 1 else after_all(len(leases), end))
            return
        ended = end if len(leases) == 1 else after_all(len(leases), end)
        turns = [Turn.of(lease, handler, ended) for lease in leases]
        try:
            self._fan_out.make(leases)
        except UNDECIDED as exc:
            self._undecided(exc, turns)
            return
        if len(turns) == 1 or handler is None:
            for turn in turns:
                self._take(turn)
        else:
            self._batches.run(turns, handler, alone=self._take)

    def settle(self) -> None:
        """Settle, in this thread, what has ended and has written nothing; unless another thread does so."""
        self._joined.settle()

    def settle_beside(self) -> None:
        """Have that settled in a thread of its own."""
        self._joined.settle_beside()

    def run(self, lease: Lease) -> None:
        """Run and settle an event that was claimed. Never raises for what a handler, PostgreSQL or Redis can do."""
        has_ended = threading.Event()
        self.run_group([lease], has_ended.set)
        self.settle()
        has_ended.wait()

    def interrupt(self) -> None:
        """End the handlers that still run; their events are given back. For a process that has no time left.

        To be repeated: an exception that is raised in a thread may get lost there, in a ``__del__`` for instance.
        """
        self._releaser.hurry()
        self._heartbeat.cancel_all()
        self._interruptions.interrupt()
        self._heartbeat.stop_coroutines()
        self._heartbeat.cancel_statements()  # not before: a handler would take it for an error of its own

    def abandon(self) -> None:
        """Give back the events of handlers that nothing ends, whose process is to be gone right after."""
        self._releaser.abandoned(self.running())

    def _in_time(self, leases: Sequence[Lease]) -> Sequence[Lease]:
        """Without those that a rate has counted as started by now, which are given back: they might be one too many."""
        late = [each for each in leases if each.starts_by is not None and each.starts_by < time.monotonic()]
        if not late:
            return leases
        self._releaser.unbegun(late)
        return [each for each in leases if each not in late]

    def _take(self, turn: Turn) -> None:
        with turn.current():
            try:
                self._attempt(turn)
            except UNDECIDED as exc:
                self._undecided(exc, [turn])
            except BaseException:
                turn.end()
                raise

    def _attempt(self, turn: Turn) -> None:
        try:
            result = self._settler.run(turn)
        except LeaseLost:
            report_lost(turn.log)
            turn.end()
        except AlreadyProcessed:
            self._endings.already_processed(turn)
        except Interrupted:
            self._releaser.interrupted(turn)
        except UNDECIDED:
            raise
        except HandlerFailed as failed:
            self._endings.failed(turn, *self._settler.checked(failed))
        except Exception as exc:  # noqa: BLE001 (a constraint checked at the commit, say: the attempt has failed)
            self._endings.failed(turn, exc)
        else:
            if isinstance(result, Completion):
                self._endings.finished(turn, result)
            else:
                self._endings.settled(turn, result)

    def _undecided(self, exc: Exception, turns: Sequence[Turn]) -> None:
        for turn in turns:
            turn.log.warning(Log.DATABASE_UNAVAILABLE, reason=str(exc))
        if self._is_spoiled():
            # No outage: the event that did it would go round for ever, and take each new process along.
            for turn in turns:
                turn.end()
        else:
            self._releaser.undecided(exc, turns)

    def _note_stuck(self) -> None:
        self.is_stuck = True
