"""What a handler function has to look like. Checked when it is declared, so that no event has to find out."""

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, get_type_hints

from pydantic import PydanticUserError, TypeAdapter

from holdfast.domain.errors import ConfigurationError
from holdfast.processor.handlers.context import Context

__all__ = ["POSITIONAL", "payload_of", "place_of"]

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def place_of(function: Callable[..., Any], *, what: str = "a handler") -> str:
    """``file:line`` of a function, which is ``what`` in messages.

    Raises:
        ConfigurationError: it is a class, a partial or another callable.
    """
    found = inspect.unwrap(function)
    if not isinstance(found, FunctionType):
        raise ConfigurationError(f"{what} is a function, not {found!r}; write one that calls it")
    return f"{found.__code__.co_filename}:{found.__code__.co_firstlineno}"


def payload_of(function: Callable[..., Any]) -> TypeAdapter[Any]:
    """What turns an event's data into the function's first argument, and checks it on the way.

    Raises:
        ConfigurationError: the signature is not ``(payload, ctx)``, or the payload's annotation is nothing to check with.
    """
    place = place_of(function)
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise ConfigurationError(f"{place}: a handler is an ordinary function; run coroutines in it with asyncio.run")
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != 2 or any(parameter.kind not in POSITIONAL for parameter in parameters):
        raise ConfigurationError(f"{place}: a handler takes two arguments, (payload: Model, ctx: Context)")
    hints = _hints(function, place)
    first, second = (hints.get(parameter.name, Any) for parameter in parameters)
    if first is Context or second not in (Context, Any):
        raise ConfigurationError(f"{place}: the payload comes first, then the context: (payload: Model, ctx: Context)")
    try:
        return TypeAdapter(first)
    except PydanticUserError as exc:
        raise ConfigurationError(
            f"{place}: the payload's annotation must be a pydantic model, dict, Any or bytes: {exc.message}"
        ) from exc


def _hints(function: Callable[..., Any], place: str) -> dict[str, Any]:
    try:
        # With extras: a discriminator or a constraint sits in Annotated.
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as exc:
        raise ConfigurationError(f"{place}: an annotation cannot be read ({exc}); import it at module level") from exc
