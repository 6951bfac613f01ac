"""Processes that a handler forks and that come back from it."""

import os
import signal
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, NoReturn, TypeVar

from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = ["await_in_this_process", "call_in_this_process"]

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


async def await_in_this_process(function: Callable[..., Awaitable[Result]], *arguments: Any) -> Result:
    """:func:`call_in_this_process` for a coroutine function. A forked process that awaits, and so runs our loop, ends."""

    async def call() -> Result:
        return await function(*arguments)

    return await _watched(call(), os.getpid())


@types.coroutine
def _watched(coroutine: Coroutine[Any, Any, Result], pid: int) -> Generator[Any, Any, Result]:
    """Pass on what goes in and out of a coroutine, with a look at the process after each of its steps."""
    value: Any = None
    error: BaseException | None = None
    while True:
        try:
            awaited = coroutine.send(value) if error is None else coroutine.throw(error)
        except StopIteration as exc:
            if os.getpid() != pid:
                _end(None)
            return exc.value  # type: ignore[no-any-return]
        except BaseException as exc:
            if os.getpid() != pid:
                _end(exc)
            raise
        if os.getpid() != pid:
            _end(None)
        value, error = None, None
        try:
            value = yield awaited
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as exc:  # noqa: BLE001 (it is the coroutine's)
            error = exc


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
