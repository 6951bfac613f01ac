"""A worker process from its start to its end: until it is told to stop, has lost a thread, or is an orphan."""

import multiprocessing
import os
import signal
import sys
import time
import traceback
from types import FrameType

from holdfast.domain.errors import HoldfastError
from holdfast.processor import VERSION
from holdfast.processor.handlers.discovery import discover
from holdfast.processor.worker.grace import Grace
from holdfast.processor.worker.process import WorkerProcess
from holdfast.processor.worker.roles import Role
from holdfast.runtime import logging
from holdfast.runtime.settings import ProcessorSettings
from holdfast.runtime.telemetry import Log

__all__ = ["CANNOT_START", "serve"]

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


def serve(settings: ProcessorSettings, role: Role) -> None:
    """Be a worker process. One that can not start, whatever the reason, exits with ``CANNOT_START``."""
    ending = _Ending()
    logging.configure(
        service="processor",
        version=VERSION,
        log_format=settings.log_format,
        level=settings.log_level,
        with_error_texts=settings.log_error_texts,
    )
    process = _started(settings, role)
    while not (ending.is_asked or ending.is_orphan() or _is_broken(process, role)):
        time.sleep(LOOK_SECONDS)
    if ending.is_asked:
        process.stop(Grace(settings.shutdown_seconds))
        return
    log.error(Log.ORPHANED if ending.is_orphan() else Log.WORKER_BROKEN, worker=role.name)
    process.stop(Grace(min(settings.shutdown_seconds, HURRY_SECONDS)))
    sys.exit(BROKEN)


def _started(settings: ProcessorSettings, role: Role) -> WorkerProcess:
    try:
        process = WorkerProcess(settings, role, discover(settings.handlers))
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

    def __init__(self) -> None:
        self.is_asked = False
        parent = multiprocessing.parent_process()
        self._parent_pid = parent.pid if parent else os.getppid()
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process decides what it means
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})

    def is_orphan(self) -> bool:
        """Whether the first process is gone; the kernel has then given this one another parent."""
        return os.getppid() != self._parent_pid

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.is_asked = True
