"""What a handler raised, judged: its own error, the end of its time, or that an operator wanted it to end."""

import time
from asyncio import CancelledError

from holdfast.processor.attempt.effects import aborted
from holdfast.processor.attempt.heartbeat import Running
from holdfast.processor.attempt.interruption import TimedOut
from holdfast.processor.handlers.outcomes import EventCancelled, HandlerTimeout
from holdfast.processor.handlers.reports import Report, report_of
from holdfast.storage.lending import Lent

__all__ = ["HandlerFailed", "failed"]


class HandlerFailed(Exception):
    """Wraps a handler's exception so that ``transaction()`` does not mistake its database error for an outage.

    ``transaction`` is the id of the one that its effects belong to, or ``None``.
    """

    def __init__(self, error: BaseException, report: Report, lent: Lent | None) -> None:
        super().__init__()
        self.error = error
        self.report = report
        self.transaction = lent.transaction if lent is not None else None


def failed(exc: BaseException, running: Running, lent: Lent | None) -> HandlerFailed:
    """Judge an exception of a handler that runs on a connection that was lent to it, or on none."""
    package, error = running.handler.package, aborted(exc, lent)
    if running.cancelled_by is not None:
        cancelled = EventCancelled(running.cancelled_by)
        return HandlerFailed(cancelled, report_of(cancelled, package=package, with_texts=False), lent)
    if not _is_over_time(error, running):
        report = report_of(error, package=package)
        if not _is_over_time(error, running):  # a __str__ takes as long as it likes
            return HandlerFailed(error, report, lent)
    timeout = _timeout(error, running)
    return HandlerFailed(timeout, report_of(timeout, package=package, with_texts=False), lent)


def _is_over_time(exc: BaseException, running: Running) -> bool:
    """Past its time, whatever a handler raises comes of that: a statement that was cancelled, say."""
    return isinstance(exc, TimedOut) or running.is_over_time(time.monotonic())


def _timeout(exc: BaseException, running: Running) -> HandlerTimeout:
    error = HandlerTimeout(f"the handler took longer than its timeout of {running.handler.timeout_seconds:g} s")
    error.__cause__ = None if isinstance(exc, TimedOut | CancelledError) else exc
    return error.with_traceback(exc.__traceback__)
