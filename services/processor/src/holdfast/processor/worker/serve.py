"""A worker process from its start to its end: until it is told to stop, has lost a thread, or is an orphan."""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from holdfast.domain.errors import HoldfastError
from holdfast.processor import VERSION
from holdfast.processor.handlers.discovery import discover
from holdfast.processor.worker import offspring
from holdfast.processor.worker.board import Board
from holdfast.processor.worker.canary import Canary
from holdfast.processor.worker.grace import Grace
from holdfast.processor.worker.process import WorkerProcess
from holdfast.processor.worker.roles import Role
from holdfast.runtime import logging
from holdfast.runtime.settings import ProcessorSettings
from holdfast.runtime.telemetry import Log

__all__ = ["CANNOT_START", "be_worker", "serve"]

log = logging.get(__name__)

CANNOT_START = 78
"""Exit status (``EX_CONFIG`` of sysexits.h): a setting or a handler is wrong, so starting again is of no use."""

BROKEN = 70
"""Exit status (``EX_SOFTWARE``): a thread has ended that the process can not do without, or hangs for good."""

LOOK_SECONDS = 0.2
"""How soon a signal or the end of the first process is noticed."""

HURRY_SECONDS = 5.0
"""Grace of a process whose first process is gone, beside which another one may be starting; and of one that is to be
replaced, because until then nobody does its work.
"""


def be_worker(run: Callable[[], int], *, name: str) -> NoReturn:
    """Turn a forked process into the worker of that name, and end it with the exit status that ``run`` returns.

    It ends by ``_exit``: whatever handlers left behind, threads that are no daemons, children that ``multiprocessing`` would
    wait for, functions registered with ``atexit``, has no say in it.
    """
    status: object = BROKEN
    try:
        offspring.lead_a_group()
        multiprocessing.current_process().name = name  # by which its metrics are filed
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # a process group in the background must not read from a terminal
        status = run()
    except SystemExit as exc:
        status = exc.code
    except BaseException:  # noqa: BLE001 (the edge of the process)
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed by a handler
                stream.flush()
        os._exit(status if isinstance(status, int) else BROKEN)


def serve(settings: ProcessorSettings, role: Role, board: Board, *, parent_pid: int) -> int:
    """Be a worker process; returns its exit status. One that can not start, whatever the reason: ``CANNOT_START``."""
    ending = _Ending(parent_pid)
    offspring.prepare_forks()
    logging.configure(service="processor", version=VERSION, log_format=settings.log_format, level=settings.log_level)
    canary = Canary()
    process = _started(settings, role, board)
    while not (ending.is_requested or ending.is_orphan() or canary.is_dead() or _is_broken(process, role)):
        board.note_alive(role.name, time.monotonic(), is_well=process.is_alive())
        time.sleep(LOOK_SECONDS)
    if ending.is_requested:
        _stop(process, role, board, settings.shutdown_seconds)
        return 0
    is_orphan = ending.is_orphan()
    if is_orphan:
        log.error(Log.ORPHANED, worker=role.name)
    else:
        log.error(Log.WORKER_BROKEN, worker=role.name, has_lost_descriptors=canary.is_dead())
    _stop(process, role, board, min(settings.shutdown_seconds, HURRY_SECONDS))
    if is_orphan:
        offspring.end_group(0)  # this process included: there is no first process that would do it
    return BROKEN


def _stop(process: WorkerProcess, role: Role, board: Board, seconds: float) -> None:
    """Stop within the grace. When it is over the kernel ends the process, whatever its threads are busy with."""
    grace = Grace(seconds)
    board.note_ending(role.name, grace.ends_at)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    process.stop(grace)


def _started(settings: ProcessorSettings, role: Role, board: Board) -> WorkerProcess:
    try:
        process = WorkerProcess(settings, role, discover(settings.handlers), board)
    except HoldfastError as exc:
        sys.stderr.write(f"{exc}\n")
        sys.exit(CANNOT_START)
    except Exception:  # noqa: BLE001 (what a handler's module can raise when it is imported)
        traceback.print_exc()
        sys.exit(CANNOT_START)
    process.start()
    return process


def _is_broken(process: WorkerProcess, role: Role) -> bool:
    """Whether it has to end by itself. For a lost thread that is up to whoever asks ``/livez``, where somebody can."""
    return process.is_stuck or (role.metrics_port == 0 and not process.is_alive())


class _Ending:
    """Why a worker process would end. Made in its main thread, with the signals still blocked."""

    def __init__(self, parent_pid: int) -> None:
        self.is_requested = False
        self._parent_pid = parent_pid
        signal.signal(signal.SIGTERM, self._request)
        # Ctrl-C reaches all; the first process decides what it means. Not SIG_IGN, which the programs that a handler starts
        # would inherit.
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})

    def is_orphan(self) -> bool:
        """Whether the first process is gone; the kernel has then given this one another parent."""
        return os.getppid() != self._parent_pid

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        self.is_requested = True
