"""The stranger's code itself: its validators, the handler and what is around it, the flush, making JSON of the result."""

from functools import partial
from typing import Any

from holdfast.processor.attempt.effects import guarded
from holdfast.processor.attempt.failures import failed
from holdfast.processor.attempt.forked import call_in_this_process
from holdfast.processor.attempt.heartbeat import Running
from holdfast.processor.attempt.interruption import Interrupted
from holdfast.processor.attempt.results import checked_result
from holdfast.processor.handlers.around import Attempt, call_within
from holdfast.processor.handlers.context import Context
from holdfast.processor.handlers.payloads import valid_payload
from holdfast.storage import Session
from holdfast.storage.lending import Lent

__all__ = ["called"]

__tracebackhide__ = True


def called(running: Running, context: Context, session: Session | None, lent: Lent | None) -> Any:
    """What the handler returned, as it is stored. Called where the thread may be interrupted.

    Raises:
        HandlerFailed: whatever any of it raised, ``SystemExit`` included.
        Interrupted: the process has no time left.
    """
    handler = running.handler
    try:
        payload = valid_payload(handler.payload, running.lease.event)
        with guarded(session):
            # Both: a process that the handler forks ends before it runs through what is around it, too.
            call = partial(call_in_this_process, handler.function, payload, context)
            attempt = Attempt(handler.name, payload, context)
            result = call_in_this_process(call_within, handler.arounds, attempt, call)
        return checked_result(result)
    except Interrupted:
        raise
    except BaseException as exc:  # noqa: BLE001 (a handler that calls sys.exit() has failed, nothing more)
        raise failed(exc, running, lent) from None
