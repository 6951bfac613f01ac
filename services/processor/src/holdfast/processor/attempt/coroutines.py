"""Attempts of ``async def`` handlers: begun together, and run on the event loop."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from functools import partial

from holdfast.domain.errors import AlreadyProcessed, LeaseLost
from holdfast.domain.transitions import Completion
from holdfast.processor.attempt.async_ends import AsyncEnds, Outcome
from holdfast.processor.attempt.calling import awaited
from holdfast.processor.attempt.event_loop import EventLoop
from holdfast.processor.attempt.failures import HandlerFailed, failed
from holdfast.processor.attempt.heartbeat import Heartbeat, Running
from holdfast.processor.attempt.interruption import Interrupted, Interruptions
from holdfast.processor.attempt.run import Runner
from holdfast.processor.attempt.turn import Turn
from holdfast.runtime.background import Batcher
from holdfast.storage import lifecycle
from holdfast.storage.database import Database

__all__ = ["Coroutines"]

__tracebackhide__ = True

PROGRESS_SECONDS = 0.02
"""Until a report of progress is told; a report must not wait for Redis on the loop."""


class Coroutines:
    """Runs ``async def`` handlers, from any number of threads.

    Nothing on the loop waits for PostgreSQL or Redis: what an attempt comes to is left to a thread, which settles it with
    others. Leases are kept, and times are up, as for any handler without a transaction (:class:`Heartbeat`).

    Args:
        ends: settles what has ended.
        is_needed: whether there is any such handler: only then are there a loop and its threads.
    """

    def __init__(
        self, effects: Database, runner: Runner, interruptions: Interruptions, heartbeat: Heartbeat,
        ends: AsyncEnds, *, is_needed: bool,
    ) -> None:  # fmt: skip
        self._effects = effects
        self._runner = runner
        self._interruptions = interruptions
        self._heartbeat = heartbeat
        self._ends = ends
        self._loop = EventLoop() if is_needed else None
        self._reports: Batcher[Callable[[], object]] = Batcher(
            "async-progress", _tell_all, interval_seconds=PROGRESS_SECONDS
        )

    def start(self) -> None:
        """Begin, if there is any such handler."""
        if self._loop is not None:
            self._loop.start()
            self._reports.start()

    def stop(self) -> None:
        """End the loop, if it answers."""
        if self._loop is not None:
            self._loop.stop()
            self._reports.stop()

    @property
    def is_alive(self) -> bool:
        """Whether the loop's thread runs, if there has to be one."""
        return self._loop is None or self._loop.is_alive

    def begin(self, turns: Sequence[Turn]) -> None:
        """Begin with events; returns at once. What comes of each is settled by itself.

        Raises:
            DatabaseUnavailable, StatementTooSlow: none was begun.
        """
        with self._effects.transaction() as session:
            held = lifecycle.hold_all(
                session, [turn.lease for turn in turns]
            )  # what is done elsewhere is not done again
        for turn in turns:
            event_id = turn.lease.event.id
            if event_id in held.event_ids:
                self._submit(turn)
            elif event_id in held.processed:
                self._ends.leave(turn, AlreadyProcessed("the processed-event log has this event"))
            else:
                self._ends.leave(turn, LeaseLost("the lease expired before the handler began"))

    def _submit(self, turn: Turn) -> None:
        handler = turn.handler
        if handler is None or self._loop is None:
            raise TypeError("only an async def handler is begun here")
        running = Running(turn.lease, handler, started=math.inf)
        # Not on the loop: one that is blocked must not cost leases of events that wait for it.
        self._heartbeat.add(running)
        self._loop.submit(running, partial(self._attempt, turn, running), done=partial(self._note_done, turn, running))

    async def _attempt(self, turn: Turn, running: Running) -> Completion:
        running.started = turn.started = time.monotonic()
        with turn.current():
            context = self._runner.context_on_loop(turn, running, self._reports.add)
            result = await awaited(running, context)
        duration_ms = int((time.monotonic() - turn.started) * 1000)
        return Completion(running.handler.name, result, duration_ms, *context.close())

    def _note_done(self, turn: Turn, running: Running, task: "asyncio.Task[Completion]") -> None:
        self._heartbeat.discard(running)
        self._ends.leave(turn, self._outcome(running, task))

    def _outcome(self, running: Running, task: "asyncio.Task[Completion]") -> Outcome:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if running.cancelled_by is not None:  # whatever it came to does not count
            return failed(asyncio.CancelledError(), running, None)
        if error is None:
            return task.result()
        if self._interruptions.is_over:  # whatever it raises now comes of that
            return Interrupted()
        if running.is_lost:
            return LeaseLost("the lease was taken away while the handler ran")
        return error if isinstance(error, HandlerFailed) else failed(error, running, None)


def _tell_all(reports: Sequence[Callable[[], object]]) -> None:
    for report in reports:
        report()
