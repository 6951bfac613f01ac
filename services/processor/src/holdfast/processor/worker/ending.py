"""Why a worker process ends, and how: nothing that handlers left behind has a say in it."""

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from holdfast.processor.worker import offspring
from holdfast.runtime.naps import Nap

__all__ = ["BROKEN", "Ending", "be_worker"]

BROKEN = 70
"""Exit status (``EX_SOFTWARE``): a thread has ended that the process cannot do without, or hangs for good."""


def be_worker(run: Callable[[], int], *, name: str) -> NoReturn:
    """Turn a forked process into the worker of that name, and end it with the exit status that ``run`` returns.

    It ends by ``_exit``: whatever handlers left behind, threads that are no daemons, children that ``multiprocessing`` would
    wait for, functions registered with ``atexit``, has no say in it.
    """
    status: object = BROKEN
    try:
        Nap.forget()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
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


class Ending:
    """Why a worker process would end. Made in its main thread, with the signals still blocked."""

    def __init__(self, parent_pid: int) -> None:
        self.is_requested = False
        self._parent_pid = parent_pid
        # Not a pipe, as in Nap: handlers may close descriptors. A put may interrupt a get, in the same thread.
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        signal.signal(signal.SIGTERM, self._request)
        # Ctrl-C reaches all; the first process decides what it means. Not SIG_IGN, which the programs that a handler starts
        # would inherit. The kernel sends it too when the first process is gone.
        signal.signal(signal.SIGINT, lambda number, _: self._signals.put(number))
        offspring.hear_of_parents_end(signal.SIGINT)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})

    def is_orphan(self) -> bool:
        """Whether the first process is gone; the kernel has then given this one another parent."""
        return os.getppid() != self._parent_pid

    def wait(self, seconds: float) -> None:
        """Return then, or at once when a signal comes that may be a reason to end. For the main thread.

        One that comes in the microseconds between the last instruction and the sleep does not end it, so ``seconds`` bound
        how late a signal may be noticed.
        """
        with contextlib.suppress(queue.Empty):
            self._signals.get(timeout=seconds)

    def _request(self, number: int, _frame: FrameType | None) -> None:
        self.is_requested = True
        self._signals.put(number)
