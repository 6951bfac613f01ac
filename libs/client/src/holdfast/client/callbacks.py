"""Calls the caller's own functions, which may be plain or ``async``, and may fail for a while."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

from holdfast.client.errors import ApiProblem

__all__ = ["call", "is_final"]

Result = TypeVar("Result")


async def call(function: Callable[[], Result | Awaitable[Result]]) -> Result:
    """The function's result. A plain function runs in a thread, so it may block; an ``async`` one in the event loop."""
    if inspect.iscoroutinefunction(function):
        return await function()  # type: ignore[no-any-return]
    result = await asyncio.to_thread(function)
    if inspect.isawaitable(result):  # a plain function that returns a coroutine: functools.partial, a lambda
        return await result
    return result


def is_final(error: Exception) -> bool:
    """Whether calling again is useless: the API refused for good. Any other error may pass."""
    return isinstance(error, ApiProblem) and not error.is_temporary
