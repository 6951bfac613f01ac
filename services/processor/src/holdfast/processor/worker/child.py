"""One worker process as the first process sees it: started, watched, killed, and started again."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from holdfast.processor.worker import offspring
from holdfast.processor.worker.board import Board
from holdfast.processor.worker.ending import be_worker
from holdfast.processor.worker.importing import LIMIT_SECONDS
from holdfast.processor.worker.offspring import SIGNALS
from holdfast.processor.worker.roles import Role
from holdfast.processor.worker.serve import serve
from holdfast.runtime import logging
from holdfast.runtime.refusal import CANNOT_START
from holdfast.runtime.restarts import Restarts
from holdfast.runtime.settings import ProcessorSettings
from holdfast.runtime.shared_metrics import forget_live
from holdfast.runtime.telemetry import Log

__all__ = ["CALM_SECONDS", "KILL_SECONDS", "LOOK_SECONDS", "Child"]

log = logging.get(__name__)

LOOK_SECONDS = 0.1
"""Between two looks of the first process while a worker is to be started or to go."""

CALM_SECONDS = 1.0
"""…while all of them run: that one has ended, or that the service is to, comes as a signal."""

RESTART_SECONDS = (0.1, 5.0)
"""Wait before a worker is started again, and the longest one; it doubles with each death."""

KILL_SECONDS = 2.0
"""After its grace a worker that is still there is killed."""

FROZEN_SECONDS = 60.0
"""A worker whose main thread has not run for this long is killed and replaced: no exception, signal or timeout reaches it."""


class Child:
    """One worker process and its successors."""

    def __init__(self, settings: ProcessorSettings, role: Role, board: Board) -> None:
        self._settings = settings
        self._role = role
        self._board = board
        self._restarts = Restarts(*RESTART_SECONDS)
        self._silence = _Silence()
        self.pid = 0
        self.status: int | None = None
        """Exit status of the last process; negative for a signal, ``None`` while it runs."""

    @property
    def is_running(self) -> bool:
        return self.pid != 0 and self.status is None

    @property
    def is_calm(self) -> bool:
        """Whether it runs and is not about to end."""
        return self.is_running and not self._board.ends_at(self._role.name)

    @property
    def cannot_start(self) -> bool:
        return self.status == CANNOT_START

    def start(self) -> None:
        self._board.note_started(self._role.name)
        first = os.getpid()
        with _blocked_signals():
            pid = os.fork()
            if pid == 0:
                be_worker(
                    lambda: serve(self._settings, self._role, self._board, parent_pid=first), name=self._role.name
                )
        self.pid, self.status, self._silence = pid, None, _Silence()

    def look_after(self, slept_seconds: float) -> None:
        """Replace it: some time after its death, unless that is of no use; at once when it does not go by itself.

        ``slept_seconds`` have passed since the last look.
        """
        now = time.monotonic()
        if self.is_running:
            self._restarts.note_running(now)
            self._kill_if_overdue(now, slept_seconds)
        elif self.cannot_start:
            return
        elif (wait_seconds := self._restarts.note_death(now)) is not None:
            log.error(Log.WORKER_ENDED, worker=self._role.name, status=self.status, restart_in_seconds=wait_seconds)
            forget_live(self._role.name)
        elif self._restarts.is_due(now):
            self.start()
            self._restarts.note_running(now)

    def note_end(self, pid: int, status: int) -> bool:
        """A child has ended; whether it was this worker. Its process group ends with it."""
        if pid != self.pid or not self.is_running:
            return False
        self.status = status
        offspring.end_group(pid)
        return True

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill it if it still runs, and see its end."""
        if self.is_running:
            log.error(Log.WORKER_KILLED, worker=self._role.name)
            os.kill(self.pid, signal.SIGKILL)
            _, status = os.waitpid(self.pid, 0)
            self.note_end(self.pid, os.waitstatus_to_exitcode(status))

    def _kill_if_overdue(self, now: float, slept_seconds: float) -> None:
        ends_at = self._board.ends_at(self._role.name)
        alive_at = self._board.alive_at(self._role.name)
        frozen_seconds = self._silence.seconds_at_look(alive_at, slept_seconds)
        # One that has not spoken yet imports its handlers, and gives up by itself unless it runs no Python.
        limit_seconds = FROZEN_SECONDS if alive_at else LIMIT_SECONDS + FROZEN_SECONDS
        if (ends_at and now > ends_at + KILL_SECONDS) or frozen_seconds > limit_seconds:
            self.kill()


class _Silence:
    """For how long a time on the board has stood still, counted in what this process meant to sleep: while it is itself
    paused, and its workers with it, it counts nothing.
    """

    def __init__(self) -> None:
        self._last = 0.0
        self._seconds = 0.0

    def seconds_at_look(self, alive_at: float, slept_seconds: float) -> float:
        self._seconds = self._seconds + slept_seconds if alive_at == self._last else 0.0
        self._last = alive_at
        return self._seconds


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """For the moment between the fork and the worker's own handlers, in which ours would swallow a signal."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
