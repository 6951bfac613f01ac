"""The stranger's code itself: its validators, the handler and what is around it, the flush, making JSON of the result."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from holdfast.processor.attempt.effects import Effects
from holdfast.processor.attempt.failures import HandlerFailed, failed
from holdfast.processor.attempt.forked import await_in_this_process, call_in_this_process
from holdfast.processor.attempt.heartbeat import Running
from holdfast.processor.attempt.interruption import Interrupted
from holdfast.processor.attempt.results import checked_result
from holdfast.processor.handlers.around import Attempt, await_within, call_within
from holdfast.processor.handlers.bulk import BatchContext
from holdfast.processor.handlers.context import Context
from holdfast.processor.handlers.outcomes import InvalidResult
from holdfast.processor.handlers.payloads import valid_payload

__all__ = ["awaited", "called", "called_for_all"]

__tracebackhide__ = True


def called(running: Running, context: Context, effects: Effects) -> Any:
    """What the handler returned, as it is stored. Called where the thread may be interrupted.

    Raises:
        HandlerFailed: whatever any of it raised, ``SystemExit`` included.
        Interrupted: the process has no time left.
    """
    handler = running.handler
    if handler.is_bulk:
        [outcome] = called_for_all(running, [context], effects)
        if isinstance(outcome, HandlerFailed):
            raise outcome
        return outcome
    try:
        payload = valid_payload(handler.payload, running.lease.event)
        with effects.guarded():
            # Both: a process that the handler forks ends before it runs through what is around it, too.
            call = partial(call_in_this_process, handler.function, payload, context)
            attempt = Attempt(handler.name, payload, context)
            result = call_in_this_process(call_within, handler.arounds, attempt, call)
        return checked_result(result)
    except Interrupted:
        raise
    except BaseException as exc:  # noqa: BLE001 (a handler that calls sys.exit() has failed, nothing more)
        raise failed(exc, running, effects.lent) from None


async def awaited(running: Running, context: Context) -> Any:
    """:func:`called` for an ``async def`` handler: on the event loop, in the task that is cancelled when its time is up.

    Raises:
        HandlerFailed: whatever any of it raised; also where it was cancelled, by whomever.
    """
    handler = running.handler
    try:
        payload = valid_payload(handler.payload, running.lease.event)
        call = partial(await_in_this_process, handler.function, payload, context)
        attempt = Attempt(handler.name, payload, context)
        result = await await_in_this_process(await_within, handler.arounds, attempt, call)
        return checked_result(result)
    except GeneratorExit:  # the loop is closed, with the process
        raise
    except BaseException as exc:  # noqa: BLE001 (as in called)
        raise failed(exc, running, None) from None


def called_for_all(running: Running, contexts: Sequence[Context], effects: Effects) -> list[Any]:
    """For each event what the handler of a list returned for it, as it is stored, or its ``HandlerFailed``.

    Raises:
        HandlerFailed: the handler raised: there is no telling for which event.
        Interrupted: the process has no time left.
    """
    handler, failures = running.handler, dict[int, HandlerFailed]()
    try:
        payloads = dict[int, Any]()
        for index, context in enumerate(contexts):
            try:
                payloads[index] = valid_payload(handler.payload, context.event)
            except Exception as exc:  # noqa: BLE001 (a validator is a stranger's code)
                failures[index] = failed(exc, running, effects.lent)
        results = dict(zip(payloads, _results(running, contexts, payloads, effects, failures), strict=True))
        return [failures.get(index, results.get(index)) for index in range(len(contexts))]
    except Interrupted:
        raise
    except BaseException as exc:  # noqa: BLE001 (as in called)
        raise failed(exc, running, effects.lent) from None


def _results(
    running: Running, contexts: Sequence[Context], payloads: dict[int, Any], effects: Effects,
    failures: dict[int, HandlerFailed],
) -> list[Any]:  # fmt: skip
    """What the handler returned for its payloads; what it let fail is added to ``failures``."""
    if not payloads:
        return []
    handler, places = running.handler, list(payloads)
    batch = BatchContext([contexts[index] for index in places])
    with effects.guarded():
        call = partial(call_in_this_process, handler.function, list(payloads.values()), batch)
        attempt = Attempt(handler.name, list(payloads.values()), batch)
        returned = call_in_this_process(call_within, handler.arounds, attempt, call)
    results = [None] * len(places) if returned is None else returned
    if not isinstance(results, list | tuple) or len(results) != len(places):
        raise InvalidResult(f"a handler of {len(places)} payloads returns nothing, or a list of {len(places)} results")
    for index, error in batch.failures.items():
        failures[places[index]] = failed(error, running, effects.lent)
    return [checked_result(each) for each in results]
