"""One worker process as the first process sees it: started, watched, killed, and started again."""

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from holdfast.ingest.processes.board import Board, name_of
from holdfast.ingest.processes.worker import HURRY, SIGNALS
from holdfast.runtime import logging
from holdfast.runtime.naps import Nap
from holdfast.runtime.refusal import CANNOT_START
from holdfast.runtime.restarts import Restarts
from holdfast.runtime.telemetry import Log

__all__ = ["Child"]

log = logging.get(__name__)

RESTART_SECONDS = (0.1, 5.0)
"""Wait before a worker is started again, and the longest one; it doubles with each death."""

FROZEN_SECONDS = 20.0
"""A worker whose loop has not turned for this long is killed and replaced: its connections wait for nobody."""

START_SECONDS = 60.0
"""…and one that has not begun to serve by then."""


class Child:
    """One worker process and its successors.

    Args:
        run: serves, in the forked process.
    """

    def __init__(self, number: int, board: Board, run: Callable[[], None]) -> None:
        self.name = name_of(number)
        self.pid = 0
        self.status: int | None = None
        """Exit status of the last process; negative for a signal, ``None`` while it runs."""
        self._number = number
        self._board = board
        self._run = run
        self._restarts = Restarts(*RESTART_SECONDS)
        self._has_served = False
        self._silence = _Silence()

    @property
    def is_running(self) -> bool:
        return self.pid != 0 and self.status is None

    @property
    def refusal(self) -> int:
        """The status with which the service has to end, because this worker cannot start; otherwise 0.

        One whose predecessor could is started again even though it fails: what it needs is short, and others serve.
        """
        if self.status == CANNOT_START or (self.status == 1 and not self._has_served):
            return self.status
        return 0

    def start(self) -> None:
        """Fork.

        Raises:
            OSError: there is no room for one more process.
        """
        self._board.note_started(self._number)
        # Until the worker's loop hears them: a handler of ours would swallow one that comes meanwhile.
        signal.pthread_sigmask(signal.SIG_BLOCK, {*SIGNALS, HURRY})
        try:
            pid = os.fork()
            if pid == 0:
                _be_worker(self.name, self._run)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {*SIGNALS, HURRY})
        self.pid, self.status, self._silence = pid, None, _Silence()

    def look_after(self, slept_seconds: float) -> None:
        """Replace it: some time after its death, or when it hangs. ``slept_seconds`` have passed since the last look."""
        now = time.monotonic()
        if self.is_running:
            self._restarts.note_running(now)
            has_begun = self._board.has_begun(self._number)
            self._has_served |= has_begun
            silent = self._silence.seconds_at_look(self._board.well_at(self._number), slept_seconds)
            if silent > (FROZEN_SECONDS if has_begun else START_SECONDS):
                self.kill()
        elif (wait_seconds := self._restarts.note_death(now)) is not None:
            log.error(Log.WORKER_ENDED, worker=self.name, status=self.status, restart_in_seconds=wait_seconds)
        elif self._restarts.is_due(now):
            self.start()
            self._restarts.note_running(now)

    def note_end(self, pid: int, status: int) -> None:
        """A child has ended; perhaps it was this worker."""
        if pid == self.pid and self.is_running:
            self.status = status
            self._has_served |= self._board.has_begun(self._number)
            self._board.note_started(self._number)

    def tell(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.is_running:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it if it still runs, and see its end."""
        if self.is_running:
            log.error(Log.WORKER_KILLED, worker=self.name)
            os.kill(self.pid, signal.SIGKILL)
            _, status = os.waitpid(self.pid, 0)
            self.note_end(self.pid, os.waitstatus_to_exitcode(status))


class _Silence:
    """For how long a time on the board has stood still, counted in what this process meant to sleep: while it is itself
    paused, and its workers with it, it counts nothing.
    """

    def __init__(self) -> None:
        self._last = 0.0
        self._seconds = 0.0

    def seconds_at_look(self, well_at: float, slept_seconds: float) -> float:
        self._seconds = self._seconds + slept_seconds if well_at == self._last else 0.0
        self._last = well_at
        return self._seconds


def _be_worker(name: str, run: Callable[[], None]) -> NoReturn:
    """Turn a forked process into the worker, and end it without going back to where it was forked."""
    status: object = 1
    try:
        Nap.forget()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        multiprocessing.current_process().name = name  # by which its metrics are filed
        run()
        status = 0
    except SystemExit as exc:
        status = exc.code
    except BaseException:  # noqa: BLE001 (the edge of the process)
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status if isinstance(status, int) else 1)
