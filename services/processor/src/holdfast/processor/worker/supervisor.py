"""The service's first process: starts the worker processes, replaces what died or does not go, and stops all of them.

Dramatiq's own command would stop every worker when one of them is killed, and could not give suspects a process of their
own. Workers are forked from here before there is any thread or connection, so one that died is back within a moment.
"""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from holdfast.processor.worker import offspring
from holdfast.processor.worker.board import SUPERVISOR, Board
from holdfast.processor.worker.ending import be_worker
from holdfast.processor.worker.offspring import SIGNALS
from holdfast.processor.worker.roles import Role
from holdfast.processor.worker.serve import CANNOT_START, serve
from holdfast.runtime import logging
from holdfast.runtime.restarts import Restarts
from holdfast.runtime.settings import ProcessorSettings
from holdfast.runtime.shared_metrics import forget_live
from holdfast.runtime.telemetry import Log

__all__ = ["Supervisor"]

log = logging.get(__name__)

LOOK_SECONDS = 0.1

RESTART_SECONDS = (0.1, 5.0)
"""Wait before a worker is started again, and the longest one; it doubles with each death."""

KILL_SECONDS = 2.0
"""After its grace a worker that is still there is killed."""

FROZEN_SECONDS = 60.0
"""A worker whose main thread has not run for this long is killed and replaced: no exception, signal or timeout reaches it."""


class Supervisor:
    """Keeps one worker process for each role."""

    def __init__(self, settings: ProcessorSettings, roles: Sequence[Role]) -> None:
        self._settings = settings
        self._board = Board(role.name for role in roles)
        self._workers = [_Worker(settings, role, self._board) for role in roles]
        self._missing: list[str] = []
        self._is_stopping = False

    def run(self) -> int:
        """Until SIGTERM or SIGINT, or a worker cannot be started; returns the exit status."""
        for number in SIGNALS:
            signal.signal(number, self._stop)
        offspring.adopt_orphans()
        self._not_ours = offspring.children()
        try:
            self._supervise()
        except OSError:
            # No memory, say. An exception would leave this process waiting for the other workers, deaf and for ever.
            log.exception(Log.WORKER_NOT_FORKED)
            self._end()
            return 1
        is_told_to_stop = self._is_stopping
        return 0 if self._end() and is_told_to_stop else 1

    def _supervise(self) -> None:
        since = time.monotonic()
        for worker in self._workers:
            worker.start()
        while not self._is_stopping and not any(worker.cannot_start for worker in self._workers):
            time.sleep(LOOK_SECONDS)
            self._reap()
            for worker in self._workers:
                worker.look_after()
            self._tell_missing(since)

    def _tell_missing(self, since: float) -> None:
        now = time.monotonic()
        self._board.note_alive(SUPERVISOR, now, is_well=True)
        missing = self._board.missing(now, since=since)
        if missing and missing != self._missing:
            log.error(Log.WORKERS_MISSING, workers=missing)
        self._missing = missing

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._is_stopping = True

    def _end(self) -> bool:
        """Stop the workers that run; whether all of them did so in time and in order."""
        running = [worker for worker in self._workers if worker.is_running]
        for worker in running:
            worker.terminate()
        deadline = time.monotonic() + self._settings.shutdown_seconds + KILL_SECONDS
        while any(worker.is_running for worker in running) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
            self._reap()
        for worker in running:
            worker.kill()
        self._end_orphans()
        return all(worker.status == 0 for worker in running)

    def _reap(self) -> None:
        """Take note of every child that has ended. When a worker has, what it forked ends too."""
        has_lost_worker = False
        while (ended := _next_ended()) is not None:
            pid, status = ended
            for worker in self._workers:
                has_lost_worker |= worker.note_end(pid, status)
        if has_lost_worker:
            self._end_orphans()

    def _end_orphans(self) -> None:
        """Kill what was forked by workers and has left their process groups."""
        pids = {worker.pid for worker in self._workers if worker.is_running} | self._not_ours
        for orphan in offspring.children() - pids:
            os.kill(orphan, signal.SIGKILL)  # a child that nobody has waited for: the id is still its own


class _Worker:
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

    def look_after(self) -> None:
        """Replace it: some time after its death, unless that is of no use; at once when it does not go by itself."""
        now = time.monotonic()
        if self.is_running:
            self._restarts.note_running(now)
            self._kill_if_overdue(now)
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

    def _kill_if_overdue(self, now: float) -> None:
        ends_at = self._board.ends_at(self._role.name)
        frozen_seconds = self._silence.seconds_at_look(self._board.alive_at(self._role.name))
        if (ends_at and now > ends_at + KILL_SECONDS) or frozen_seconds > FROZEN_SECONDS:
            self.kill()


class _Silence:
    """For how long a time on the board has stood still, counted in looks of this process: while it is itself paused, and its
    workers with it, it counts nothing.
    """

    def __init__(self) -> None:
        self._last = 0.0
        self._looks = 0

    def seconds_at_look(self, alive_at: float) -> float:
        """A worker that has not spoken yet is starting, which may take any time: its handlers are being imported."""
        self._looks = self._looks + 1 if alive_at == self._last and alive_at else 0
        self._last = alive_at
        return self._looks * LOOK_SECONDS


def _next_ended() -> tuple[int, int] | None:
    """``(pid, exit status)`` of a child that has ended, or ``None``."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """For the moment between the fork and the worker's own handlers, in which ours would swallow a signal."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
