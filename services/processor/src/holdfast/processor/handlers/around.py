"""What authors put around their handlers: tracing, tenants, metrics of one's own."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from holdfast.domain.errors import ConfigurationError
from holdfast.processor.handlers.declaration import POSITIONAL, place_of

__all__ = ["Around", "Attempt", "call_within", "check_around"]

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
"""``(attempt, call)``; returns what the attempt returns, which is mostly what ``call()`` did."""


def check_around(function: Callable[..., Any]) -> None:
    """Refuse what cannot be one.

    Raises:
        ConfigurationError: it is not an ordinary function of two arguments.
    """
    place = place_of(function, what="what is around a handler")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise ConfigurationError(
            f"{place}: what is around a handler is an ordinary function, with 'return call()' in it"
        )
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != 2 or any(parameter.kind not in POSITIONAL for parameter in parameters):
        raise ConfigurationError(f"{place}: what is around a handler takes two arguments, (attempt, call)")


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
