"""Importing the handlers: strangers' code, which may hang or exit before there is anything that watches over it."""

import signal
import sys
import time
from types import FrameType
from typing import NoReturn

from holdfast.domain.errors import ConfigurationError
from holdfast.processor.attempt.forked import call_in_this_process
from holdfast.processor.handlers.discovery import discover
from holdfast.processor.handlers.registry import Handlers
from holdfast.processor.worker.ending import BROKEN, Ending
from holdfast.runtime import logging
from holdfast.runtime.refusal import refuse
from holdfast.runtime.telemetry import Log

__all__ = ["LIMIT_SECONDS", "import_handlers"]

log = logging.get(__name__)

LIMIT_SECONDS = 600.0
"""Loading a large model takes minutes. Whatever takes longer hangs, and the process is replaced."""

REPORT_SECONDS = 10.0
"""Between two log lines that say where an import is."""

LOOK_SECONDS = 0.5
"""How soon a signal or the end of the first process is noticed."""


def import_handlers(path: str | None, ending: Ending) -> Handlers:
    """The handlers, see ``discover``.

    Raises:
        SystemExit: with ``CANNOT_START`` and the reason on standard error: they cannot be imported; with 0: the process is
            told to stop meanwhile; with ``BROKEN``: the import took too long, or the first process is gone.
    """
    watch = _Watch(ending)
    try:
        with watch:
            return call_in_this_process(discover, path)
    except ConfigurationError as exc:
        if watch.status is None:
            refuse(exc)
    except _Over:
        pass
    sys.exit(watch.status)


class _Over(BaseException):
    """Raised within an import that is not waited for any longer."""


class _Watch:
    """Looks at an import every half second, from within it: the main thread has nothing else that could.

    Attributes:
        status: exit status, once the import is not waited for any longer.
    """

    def __init__(self, ending: Ending) -> None:
        self.status: int | None = None
        self._ending = ending
        self._began = time.monotonic()
        self._report_at = self._began + REPORT_SECONDS
        self._is_done = False

    def __enter__(self) -> None:
        signal.signal(signal.SIGALRM, self._look)
        signal.setitimer(signal.ITIMER_REAL, LOOK_SECONDS, LOOK_SECONDS)

    def __exit__(self, *_: object) -> None:
        self._is_done = True
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _look(self, _number: int, frame: FrameType | None) -> None:
        if self._is_done:
            return  # the last alarm, heard late
        now = time.monotonic()
        fields = {"seconds": round(now - self._began), "place": _place(frame)}
        if self._ending.is_requested:
            self._end(0)
        if self._ending.is_orphan():
            self._end(BROKEN)
        if now - self._began > LIMIT_SECONDS:
            log.error(Log.IMPORT_GIVEN_UP, **fields)
            self._end(BROKEN)
        if now > self._report_at:
            self._report_at = now + REPORT_SECONDS
            log.warning(Log.IMPORT_TAKES_LONG, **fields)

    def _end(self, status: int) -> NoReturn:
        self.status = status
        raise _Over


def _place(frame: FrameType | None) -> str | None:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else None
