"""Processes that a handler forks and that come back from it."""

import os
import signal
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = ["call_in_this_process"]

__tracebackhide__ = True

log = logging.get(__name__)

Result = TypeVar("Result")

RETURNED = 70
"""Exit status (``EX_SOFTWARE`` of sysexits.h) of a forked process that was not meant to return and did."""

END_SECONDS = 5
"""For its last log line: a lock that another thread held at the fork stays locked in it for ever."""


def call_in_this_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call the function. A process that it forked and that returns, or raises, ends here.

    It has this process's lease and connections, and would settle the event beside it. ``sys.exit()`` in it means its own end.
    """
    pid = os.getpid()
    try:
        result = function(*arguments)
    except BaseException as exc:
        if os.getpid() != pid:
            _end(exc)
        raise
    if os.getpid() != pid:
        _end(None)
    return result


def _end(error: BaseException | None) -> NoReturn:
    status = RETURNED
    signal.alarm(END_SECONDS)
    try:
        if isinstance(error, SystemExit):
            status = _status(error.code)
        else:
            log.error(Log.CHILD_RETURNED, raised=type(error).__name__ if error else None)
    finally:
        os._exit(status)


def _status(code: object) -> int:
    """What ``sys.exit(code)`` means: nothing is success, a number itself, anything else a failure."""
    if code is None:
        return 0
    return code if isinstance(code, int) else 1
