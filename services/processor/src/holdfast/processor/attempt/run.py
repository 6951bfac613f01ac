"""Running one handler once: payload in, result out, and what it raises told apart from what happens to us."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from holdfast.domain.errors import DatabaseUnavailable
from holdfast.domain.event import Lease
from holdfast.domain.transitions import Completion
from holdfast.messaging.announce import Announcer
from holdfast.processor.attempt.effects import guarded
from holdfast.processor.attempt.forked import call_in_this_process
from holdfast.processor.attempt.heartbeat import Heartbeat, Running
from holdfast.processor.attempt.interruption import Interrupted, Interruptions, TimedOut
from holdfast.processor.attempt.progress import LiveProgress
from holdfast.processor.attempt.results import checked_result
from holdfast.processor.handlers.context import Context
from holdfast.processor.handlers.outcomes import HandlerTimeout, InvalidData
from holdfast.processor.handlers.registry import Handler
from holdfast.runtime.logging import Logger
from holdfast.storage import Session
from holdfast.storage.database import cut_off

__all__ = ["HandlerFailed", "Runner"]


class HandlerFailed(Exception):
    """Carries what a handler raised past the transaction, which would take a database error for an outage of ours."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


class Runner:
    """Runs handlers in the calling thread, where they can be interrupted and their time is watched."""

    def __init__(self, announcer: Announcer, interruptions: Interruptions, heartbeat: Heartbeat) -> None:
        self._announcer = announcer
        self._interruptions = interruptions
        self._heartbeat = heartbeat

    def run(self, handler: Handler, lease: Lease, log: Logger, *, session: Session | None) -> Completion:
        """One attempt. ``session`` is that of the settling transaction, or ``None``.

        Raises:
            HandlerFailed: the handler raised, or took too long.
            holdfast.processor.handlers.outcomes.InvalidData: it was not called.
            holdfast.processor.handlers.outcomes.InvalidResult: what it returned cannot be stored.
            Interrupted: the process has no time left.
            DatabaseUnavailable: the transaction's connection went away under it.
        """
        payload = _payload(handler, lease)
        started = time.monotonic()
        with self._heartbeat.watched(lease, handler, session=session) as running:
            result = self._call(handler, payload, running, session, log)
        return Completion(handler.name, checked_result(result), int((time.monotonic() - started) * 1000))

    def _call(self, handler: Handler, payload: Any, running: Running, session: Session | None, log: Logger) -> Any:
        lease = running.lease
        context = Context(
            event=lease.event, handler=handler.name, attempt=lease.attempt, session=session, log=log,
            report=LiveProgress(self._announcer, lease, log), is_cancelled=running.cancelled.is_set,
        )  # fmt: skip
        is_cut_off = cut_off(session) if session is not None else lambda: False
        try:
            with self._interruptions.allowed(), _effects(session):
                return call_in_this_process(handler.function, payload, context)
        except Interrupted:
            raise
        except BaseException as exc:  # a handler that calls sys.exit() has failed, nothing more
            if self._interruptions.is_over:  # whatever it raises now comes of that: a statement was cancelled, say
                raise Interrupted from exc
            if is_cut_off():
                raise DatabaseUnavailable("the connection was lost while the handler ran") from exc
            raise HandlerFailed(_judged(exc, running)) from None


def _judged(exc: BaseException, running: Running) -> BaseException:
    """Past its time, whatever a handler raises comes of that: a statement that was cancelled, say."""
    if not isinstance(exc, TimedOut) and not running.is_over_time(time.monotonic()):
        return exc
    error = HandlerTimeout(f"the handler took longer than its timeout of {running.handler.timeout_seconds:g} s")
    error.__cause__ = None if isinstance(exc, TimedOut) else exc
    return error.with_traceback(exc.__traceback__)


@contextmanager
def _effects(session: Session | None) -> Iterator[None]:
    if session is None:
        yield
        return
    with guarded(session):
        yield


def _payload(handler: Handler, lease: Lease) -> Any:
    try:
        return handler.payload.validate_python(lease.event.data)
    except ValidationError as exc:
        raise InvalidData(exc) from None
