"""The service's first process: opens the port, starts the workers, replaces what died or hangs, and stops all of them.

Workers share one listening socket, which this process keeps open: a connection that no worker has taken yet waits for the
next one, whichever of them dies. They are forked from here before there is any thread or connection, so a successor is there
within a moment.
"""

import os
import signal
import time
from functools import partial
from socket import socket
from types import FrameType

from holdfast.domain.errors import ConfigurationError
from holdfast.ingest.edge.server import GRACEFUL_SECONDS
from holdfast.ingest.processes.board import Board, Place
from holdfast.ingest.processes.child import Child
from holdfast.ingest.processes.worker import CLOSE_SECONDS, HURRY, SIGNALS, Member, work
from holdfast.runtime import logging
from holdfast.runtime.naps import Nap
from holdfast.runtime.refusal import refuse
from holdfast.runtime.settings import IngestSettings
from holdfast.runtime.telemetry import Log

__all__ = ["Supervisor", "share_of"]

log = logging.get(__name__)

LOOK_SECONDS = 0.1
"""Between two looks while a worker is to be started or to go."""

CALM_SECONDS = 1.0
"""…while all of them run: that one has ended, or that the service is to, comes as a signal."""

KILL_SECONDS = 2.0
"""After the time in which the kernel should have ended a worker it is killed."""


def share_of(settings: IngestSettings, processes: int) -> IngestSettings:
    """What one of so many processes has: connections to PostgreSQL are the service's, and divided. Threads are not: most of
    them wait for the one that commits for all.

    One connection more for each, as its checks and its notes of used keys are its own.
    """
    return settings.model_copy(update={"database_pool_size": -(-settings.database_pool_size // processes) + 1})


class Supervisor:
    """Keeps as many workers as the settings say."""

    def __init__(self, settings: IngestSettings, listener: socket) -> None:
        count = settings.ingest_processes
        self._listener = listener
        self._board = Board(count)
        self._lifeline, self._life = os.pipe()
        share = share_of(settings, count)
        self._workers = [
            Child(number, self._board, partial(self._serve, share, Place(self._board, number)))
            for number in range(count)
        ]
        self._told = 0

    def run(self) -> int:
        """Until SIGTERM or SIGINT, or a worker cannot start; returns the exit status."""
        for number in SIGNALS:
            signal.signal(number, self._be_told)
        signal.signal(HURRY, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # ends a nap
        self._nap = Nap()
        try:
            self._supervise()
        except OSError:
            log.exception(Log.WORKER_NOT_FORKED)
            self._end()
            return 1
        refusal = self._refusal
        has_ended_well = self._end()
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # the interpreter gives them their defaults before it ends
        return refusal or int(not has_ended_well)

    @property
    def _refusal(self) -> int:
        return next((worker.refusal for worker in self._workers if worker.refusal), 0)

    def _supervise(self) -> None:
        for worker in self._workers:
            worker.start()
        while not self._told and not self._refusal:
            seconds = CALM_SECONDS if all(worker.is_running for worker in self._workers) else LOOK_SECONDS
            looked = time.monotonic()
            self._nap.sleep(seconds)
            self._reap()
            slept = min(time.monotonic() - looked, seconds)
            if self._told or self._refusal:
                return
            for worker in self._workers:
                worker.look_after(slept)
            self._board.note_first(time.monotonic())

    def _end(self) -> bool:
        """Stop the workers that run; whether all of them did so in time and in order."""
        self._listener.close()
        running = [worker for worker in self._workers if worker.is_running]
        for worker in running:
            worker.tell(signal.SIGTERM)
        has_hurried = False
        deadline = time.monotonic() + GRACEFUL_SECONDS + CLOSE_SECONDS + KILL_SECONDS
        while any(worker.is_running for worker in running) and time.monotonic() < deadline:
            if self._told > 1 and not has_hurried:
                has_hurried = True
                for worker in running:
                    worker.tell(HURRY)
            self._nap.sleep(LOOK_SECONDS)
            self._reap()
        for worker in running:
            worker.kill()
        return all(worker.status == 0 for worker in running)

    def _be_told(self, _number: int, _frame: FrameType | None) -> None:
        self._told += 1

    def _reap(self) -> None:
        """Take note of every child that has ended."""
        while (ended := _next_ended()) is not None:
            for worker in self._workers:
                worker.note_end(*ended)

    def _serve(self, share: IngestSettings, place: Place) -> None:
        """In a worker."""
        os.close(self._life)
        try:
            work(share, self._listener, Member(place, self._lifeline))
        except ConfigurationError as exc:
            refuse(exc)


def _next_ended() -> tuple[int, int] | None:
    """``(pid, exit status)`` of a child that has ended, or ``None``."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None
