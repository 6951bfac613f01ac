"""The service's first process: starts the worker processes, starts again what died, and stops all of them.

Dramatiq's own command would stop every worker when one of them is killed, and could not give suspects a process of their
own. Workers are forked from here before there is any thread or connection, so one that died is back within a moment.
"""

import multiprocessing
import multiprocessing.connection
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from holdfast.processor.worker.roles import Role
from holdfast.processor.worker.serve import CANNOT_START, serve
from holdfast.runtime import logging
from holdfast.runtime.restarts import Restarts
from holdfast.runtime.settings import ProcessorSettings
from holdfast.runtime.shared_metrics import forget_live
from holdfast.runtime.telemetry import Log

__all__ = ["Supervisor"]

log = logging.get(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)

LOOK_SECONDS = 0.2

RESTART_SECONDS = (0.1, 5.0)
"""Wait before a worker is started again, and the longest one; it doubles with each death."""

KILL_SECONDS = 2.0
"""After its grace a worker that is still there is killed."""


class Supervisor:
    """Keeps one worker process for each role."""

    def __init__(self, settings: ProcessorSettings, roles: Sequence[Role]) -> None:
        self._settings = settings
        self._workers = [_Worker(settings, role) for role in roles]
        self._is_stopping = False

    def run(self) -> int:
        """Until SIGTERM or SIGINT, or a worker can not be started; returns the exit status."""
        for number in SIGNALS:
            signal.signal(number, self._stop)
        try:
            self._supervise()
        except OSError:
            # No memory, say. An exception would leave this process waiting for the other workers, deaf and for ever.
            log.exception(Log.WORKER_NOT_FORKED)
            self._end()
            return 1
        has_been_asked = self._is_stopping
        return 0 if self._end() and has_been_asked else 1

    def _supervise(self) -> None:
        for worker in self._workers:
            worker.start()
        while not self._is_stopping and not any(worker.cannot_start for worker in self._workers):
            multiprocessing.connection.wait(
                [worker.sentinel for worker in self._workers if worker.is_running], LOOK_SECONDS
            )
            for worker in self._workers:
                worker.look_after()

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._is_stopping = True

    def _end(self) -> bool:
        """Stop the workers that run; whether all of them did so in time and in order."""
        running = [worker for worker in self._workers if worker.is_running]
        for worker in running:
            worker.terminate()
        deadline = time.monotonic() + self._settings.shutdown_seconds + KILL_SECONDS
        ended = [worker.end(deadline) for worker in running]
        return all(ended)


class _Worker:
    """One worker process and its successors."""

    def __init__(self, settings: ProcessorSettings, role: Role) -> None:
        self._settings = settings
        self._role = role
        self._restarts = Restarts(*RESTART_SECONDS)
        self._process = self._new()

    def _new(self) -> multiprocessing.Process:
        return multiprocessing.Process(target=serve, args=(self._settings, self._role), name=self._role.name)

    @property
    def is_running(self) -> bool:
        return self._process.pid is not None and self._process.exitcode is None

    @property
    def sentinel(self) -> int:
        return self._process.sentinel

    @property
    def cannot_start(self) -> bool:
        return self._process.exitcode == CANNOT_START

    def start(self) -> None:
        with _blocked_signals():
            self._process.start()

    def look_after(self) -> None:
        """Start it again, some time after its death, unless that is of no use."""
        now = time.monotonic()
        status = self._process.exitcode  # asked once: it may end at any moment
        if status == CANNOT_START:
            return
        if status is None:
            self._restarts.note_running(now)
        elif (wait_seconds := self._restarts.note_death(now)) is not None:
            log.error(Log.WORKER_ENDED, worker=self._role.name, status=status, restart_in_seconds=wait_seconds)
            forget_live(self._role.name)
        elif self._restarts.is_due(now):
            self._process.close()
            self._process = self._new()
            self.start()
            self._restarts.note_running(now)

    def terminate(self) -> None:
        self._process.terminate()

    def end(self, deadline: float) -> bool:
        """Wait for its end, and kill it at the deadline; whether it ended well."""
        self._process.join(max(0.0, deadline - time.monotonic()))
        if self.is_running:
            log.error(Log.WORKER_KILLED, worker=self._role.name)
            self._process.kill()
            self._process.join()
        return self._process.exitcode == 0


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """For the moment between the fork and the worker's own handlers, in which ours would swallow a signal."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
