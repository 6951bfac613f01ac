"""What a handler function has to look like. Checked when it is declared, so that no event has to find out."""

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from pydantic import PydanticUserError, TypeAdapter

from holdfast.domain.errors import ConfigurationError
from holdfast.processor.handlers.bulk import BatchContext
from holdfast.processor.handlers.context import Context

__all__ = ["POSITIONAL", "Signature", "place_of", "signature_of"]

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


class Signature(NamedTuple):
    """What a handler function takes.

    ``payload`` turns an event's data into the first argument, or into an item of it where ``is_bulk``.
    """

    payload: TypeAdapter[Any]
    is_bulk: bool
    is_async: bool


def signature_of(function: Callable[..., Any]) -> Signature:
    """Read from its annotations.

    Raises:
        ConfigurationError: the signature is neither ``(payload, ctx)`` nor ``(payloads: list[…], ctx: BatchContext)``, or the
            payload's annotation is nothing to check with.
    """
    place = place_of(function)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"{place}: a handler is a function that returns; leave out 'yield'")
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != 2 or any(parameter.kind not in POSITIONAL for parameter in parameters):
        raise ConfigurationError(f"{place}: a handler takes two arguments, (payload: Model, ctx: Context)")
    hints = _hints(function, place)
    first, second = (hints.get(parameter.name, Any) for parameter in parameters)
    if first in (Context, BatchContext) or second not in (Context, BatchContext, Any):
        raise ConfigurationError(f"{place}: the payload comes first, then the context: (payload: Model, ctx: Context)")
    is_bulk, is_async = second is BatchContext, inspect.iscoroutinefunction(function)
    if is_bulk and is_async:
        raise ConfigurationError(
            f"{place}: an async def handler takes one event, and many of them run at once; take (payload, ctx: Context), or"
            " declare the handler of lists with def"
        )
    if is_bulk and (get_origin(first) is not list or not get_args(first)):
        raise ConfigurationError(
            f"{place}: with a BatchContext the payloads are a list: (payloads: list[Model], ctx: …)"
        )
    try:
        return Signature(TypeAdapter(get_args(first)[0] if is_bulk else first), is_bulk, is_async)
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
