"""What authors put around their handlers: tracing, tenants, metrics of one's own."""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.domain.errors import ConfigurationError
from holdfast.processor.handlers.declaration import POSITIONAL, place_of

__all__ = ["Around", "Attempt", "Layer", "await_within", "call_within", "check_around"]

__tracebackhide__ = True


@dataclass(frozen=True, slots=True)
class Attempt:
    """What an around function is given: the handler's name, and the two arguments that the handler gets.

    A ``Context``; for a handler of lists a list and a ``BatchContext``.
    """

    handler: str
    payload: Any
    context: Any


Around = Callable[[Attempt, Callable[[], Any]], Any]
"""``(attempt, call)``; returns what the attempt returns, which is mostly what ``call()`` did. A plain function is around
``def`` handlers; an ``async def`` one, in which ``call()`` is awaited, is around ``async def`` handlers."""


def check_around(function: Callable[..., Any]) -> None:
    """Refuse what cannot be one.

    Raises:
        ConfigurationError: it is not a function of two arguments that returns.
    """
    place = place_of(function, what="what is around a handler")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(
            f"{place}: what is around a handler is a function without 'yield', with 'return call()' in it"
        )
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != 2 or any(parameter.kind not in POSITIONAL for parameter in parameters):
        raise ConfigurationError(f"{place}: what is around a handler takes two arguments, (attempt, call)")


class Layer:
    """What is around the handlers of one collection: plain functions around plain ones, coroutines around coroutines."""

    def __init__(self) -> None:
        self._by_kind: dict[bool, list[Around]] = {False: [], True: []}

    def add(self, around: Around) -> None:
        """Put one inside of those that are there."""
        self._by_kind[inspect.iscoroutinefunction(around)].append(around)

    def of(self, *, is_async: bool) -> Sequence[Around]:
        """What is around handlers of this kind, the first one outermost."""
        return self._by_kind[is_async]

    def check(self, *, is_async: bool, name: str, place: str) -> None:
        """Refuse a handler that would run without what is around the others of its collection.

        Raises:
            ConfigurationError: all that is there is for handlers of the other kind.
        """
        if not self.of(is_async=is_async) and (others := self.of(is_async=not is_async)):
            kinds = ("def", "async def")
            raise ConfigurationError(
                f"{place_of(others[0])}: it is a {kinds[not is_async]} function, which is not around {name} at {place}, an"
                f" {kinds[is_async]} handler; put an '{kinds[is_async]} around(attempt, call)' around those as well"
            )


def call_within(arounds: Iterable[Around], attempt: Attempt, call: Callable[[], Any]) -> Any:
    """``call`` within all of them, the first one outermost; what the outermost one returned.

    Raises:
        RuntimeError: one called twice, or returned without having called.
    """
    for around in reversed([*arounds]):
        call = _within(around, attempt, call)
    return call()


def _within(around: Around, attempt: Attempt, call: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        calls = _OneCall(around, call)
        result = around(attempt, calls)
        if not calls.is_made:
            raise RuntimeError(
                f"{place_of(around)}: it returned without call(), so the handler has not run;"
                " raise Reject or Retry to keep an event from its handler"
            )
        return result

    return run


async def await_within(
    arounds: Iterable[Around], attempt: Attempt, call: Callable[[], Awaitable[Any]]
) -> Any:  # fmt: skip
    """:func:`call_within` for ``async def`` handlers and what is around those.

    Raises:
        RuntimeError: one called twice, or returned without having called and awaited.
    """
    for around in reversed([*arounds]):
        call = _awaited_within(around, attempt, call)
    return await call()


def _awaited_within(
    around: Around, attempt: Attempt, call: Callable[[], Awaitable[Any]]
) -> Callable[[], Awaitable[Any]]:
    async def run() -> Any:
        calls = _OneAwait(around, call)
        result = await around(attempt, calls)
        if not calls.is_made:
            raise RuntimeError(
                f"{place_of(around)}: it returned without 'await call()', so the handler has not run;"
                " raise Reject or Retry to keep an event from its handler"
            )
        return result

    return run


class _OneAwait:
    """As :class:`_OneCall`; it counts once it is awaited."""

    def __init__(self, around: Around, call: Callable[[], Awaitable[Any]]) -> None:
        self.is_made = False
        self._around = around
        self._call = call

    async def __call__(self) -> Any:
        if self.is_made:
            raise RuntimeError(f"{place_of(self._around)}: await call() once only; raise Retry for another attempt")
        self.is_made = True
        return await self._call()


class _OneCall:
    """Effects of one attempt must not be applied twice in it."""

    def __init__(self, around: Around, call: Callable[[], Any]) -> None:
        self.is_made = False
        self._around = around
        self._call = call

    def __call__(self) -> Any:
        if self.is_made:
            raise RuntimeError(f"{place_of(self._around)}: call() once only; raise Retry for another attempt")
        self.is_made = True
        return self._call()
