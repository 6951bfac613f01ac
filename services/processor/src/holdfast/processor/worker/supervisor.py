"""The service's first process: starts the worker processes, replaces what died or does not go, and stops all of them.

Dramatiq's own command would stop every worker when one of them is killed, and could not give suspects a process of their
own. Workers are forked from here before there is any thread or connection, so one that died is back within a moment.
"""

import os
import signal
import time
from collections.abc import Sequence
from types import FrameType

from holdfast.processor.worker import offspring
from holdfast.processor.worker.board import SUPERVISOR, Board
from holdfast.processor.worker.child import CALM_SECONDS, KILL_SECONDS, LOOK_SECONDS, Child
from holdfast.processor.worker.offspring import SIGNALS
from holdfast.processor.worker.roles import Role
from holdfast.runtime import logging
from holdfast.runtime.naps import Nap
from holdfast.runtime.refusal import CANNOT_START
from holdfast.runtime.settings import ProcessorSettings
from holdfast.runtime.telemetry import Log

__all__ = ["Supervisor"]

log = logging.get(__name__)


class Supervisor:
    """Keeps one worker process for each role."""

    def __init__(self, settings: ProcessorSettings, roles: Sequence[Role]) -> None:
        self._settings = settings
        self._board = Board(role.name for role in roles)
        self._workers = [Child(settings, role, self._board) for role in roles]
        self._missing: list[str] = []
        self._is_stopping = False

    def run(self) -> int:
        """Until SIGTERM or SIGINT, or a worker cannot be started; returns the exit status."""
        for number in SIGNALS:
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # ends a nap
        self._nap = Nap()
        offspring.adopt_orphans()
        self._not_ours = offspring.children()
        try:
            self._supervise()
        except OSError:
            # No memory, say. An exception would leave this process waiting for the other workers, deaf and for ever.
            log.exception(Log.WORKER_NOT_FORKED)
            self._end()
            return 1
        is_told_to_stop, cannot_start = self._is_stopping, self._cannot_start
        has_ended_well = self._end()
        if cannot_start:
            return CANNOT_START
        return 0 if has_ended_well and is_told_to_stop else 1

    def _supervise(self) -> None:
        since = time.monotonic()
        for worker in self._workers:
            worker.start()
        while not self._is_stopping and not self._cannot_start:
            seconds = CALM_SECONDS if all(worker.is_calm for worker in self._workers) else LOOK_SECONDS
            looked = time.monotonic()
            self._nap.sleep(seconds)
            self._reap()
            slept = min(time.monotonic() - looked, seconds)
            for worker in self._workers:
                worker.look_after(slept)
            self._tell_missing(since)

    @property
    def _cannot_start(self) -> bool:
        return any(worker.cannot_start for worker in self._workers)

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
            self._nap.sleep(LOOK_SECONDS)
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


def _next_ended() -> tuple[int, int] | None:
    """``(pid, exit status)`` of a child that has ended, or ``None``."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None
