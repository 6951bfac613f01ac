"""Steps of a handler without a transaction: stored under its lease, each in a transaction of its own."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from holdfast.domain.errors import DatabaseUnavailable, LeaseLost, StatementTooSlow
from holdfast.domain.event import Lease
from holdfast.processor.attempt.effects import Effects
from holdfast.processor.attempt.failures import HandlerFailed
from holdfast.processor.attempt.heartbeat import Running
from holdfast.processor.attempt.interruption import Interruptions
from holdfast.processor.attempt.stepping import AttemptSteps
from holdfast.processor.handlers.reports import report_of
from holdfast.processor.handlers.steps import Sleeping, Steps, Stopped
from holdfast.runtime.logging import Logger
from holdfast.runtime.telemetry import Log, Metrics
from holdfast.storage.database import Database
from holdfast.storage.steps import DoneStep, NewStep, done_steps, is_held, store_step

__all__ = ["StepEffects"]

Answer = TypeVar("Answer")

UNDECIDED = (DatabaseUnavailable, StatementTooSlow)

AGAIN_SECONDS = 0.5
"""Between two tries to store a step in a database that is away: what the step did is done."""


class StepEffects(Effects):
    """No session, but steps; and what became of the attempt at one of them, whatever its handler made of that."""

    def __init__(self, database: Database, interruptions: Interruptions, log: Logger) -> None:
        super().__init__()
        self._database = database
        self._interruptions = interruptions
        self._log = log
        self._leased: _Leased | None = None

    def steps(self, running: Running) -> Steps:
        self._leased = _Leased(self._database, running, self._interruptions)
        return AttemptSteps(self._leased)

    def check(self, raised: BaseException | None = None) -> None:
        end = self._leased.end if self._leased is not None else None
        if end is None:
            return
        if not isinstance(end, Sleeping):
            raise end
        error = raised.error if isinstance(raised, HandlerFailed) else raised
        if error is not end:
            self._log.warning(Log.SLEEP_NOT_LET_OUT)
        raise HandlerFailed(end, report_of(end, package=None, with_texts=False), None)


class _Leased:
    """The notebook of one attempt: what it writes is fenced by the lease."""

    def __init__(self, database: Database, running: Running, interruptions: Interruptions) -> None:
        self._database = database
        self._running = running
        self._interruptions = interruptions
        self._lock = threading.Lock()
        self.end: Exception | Sleeping | None = None
        """Why the attempt is over, if it ended at a step."""

    @property
    def _lease(self) -> Lease:
        return self._running.lease

    def check(self) -> None:
        if self._running.cancelled.is_set() and self.end is None and not self._call(is_held, self._lease):
            self._stop(LeaseLost("the lease was taken away while the handler ran"))
        if isinstance(self.end, Sleeping):
            raise self.end
        if self.end is not None:
            raise Stopped(f"this attempt is over: {self.end}") from self.end
        if self._running.cancelled.is_set():
            raise Stopped("the handler was told to stop, and begins no further step")

    def done(self) -> Sequence[DoneStep]:
        return self._call(done_steps, self._lease.event.id, self._running.handler.name)

    def store(self, step: NewStep) -> None:
        handler = self._running.handler.name
        if not self._call(store_step, self._lease, handler, step):
            self._stop(LeaseLost("the lease was taken away while a step was done"))
        Metrics.steps.labels(handler, "stored").inc()

    def fall_asleep(self, seconds: float) -> Sleeping:
        with self._lock:
            if self.end is None:
                self.end = Sleeping(seconds)
        return self.end if isinstance(self.end, Sleeping) else Sleeping(seconds)

    def note_reused(self) -> None:
        Metrics.steps.labels(self._running.handler.name, "reused").inc()

    def _call(self, function: Callable[..., Answer], *arguments: object) -> Answer:
        deadline = time.monotonic() + self._lease.seconds
        with self._interruptions.suspended():  # an exception from another thread would break the pool
            while True:
                try:
                    return self._database.call(function, *arguments)
                except UNDECIDED as exc:
                    if time.monotonic() > deadline or self._running.cancelled.wait(AGAIN_SECONDS):
                        self._stop(exc)

    def _stop(self, end: Exception) -> None:
        with self._lock:
            self.end = self.end or end
        self._running.cancelled.set()
        raise Stopped(f"this attempt is over: {end}") from end
