"""Handlers of both kinds, ``def`` and ``async def``, called by a test that waits for them."""

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any

from holdfast.domain.errors import ConfigurationError
from holdfast.processor.attempt.calling import awaited, called
from holdfast.processor.attempt.effects import Effects
from holdfast.processor.attempt.heartbeat import Running
from holdfast.processor.handlers.context import Context

__all__ = ["called_to_the_end", "wrapped"]

__tracebackhide__ = True


def called_to_the_end(running: Running, context: Context, effects: Effects) -> Any:
    """What the handler returned; an ``async def`` one is run on an event loop of its own.

    Raises:
        HandlerFailed: as in an attempt.
        ConfigurationError: it is ``async def``, and so is the test.
    """
    if not running.handler.is_async:
        return called(running, context, effects)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(awaited(running, context))
    raise ConfigurationError(
        "a test that is itself a coroutine calls async def handlers with 'await asyncio.to_thread(run, handler, payload)'"
    )


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that can be declared without a trace on the one that is tested."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaits(payload: Any, ctx: Context) -> Any:
            return await function(payload, ctx)

        return awaits

    @functools.wraps(function)
    def calls(payload: Any, ctx: Context) -> Any:
        return function(payload, ctx)

    return calls
