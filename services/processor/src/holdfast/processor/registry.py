"""Handlers: how they are declared, which of them serves a type, and where they are found."""

import importlib
import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, TypeVar, get_type_hints

from pydantic import PydanticUserError, TypeAdapter

from holdfast.domain.errors import ConfigurationError
from holdfast.domain.retry import DEFAULT_BACKOFF, Backoff

__all__ = ["Handler", "Handlers", "discover"]

Function = TypeVar("Function", bound=Callable[..., Any])

_PATTERN = re.compile(r"[A-Za-z0-9_.*-]{1,255}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Handler:
    """One handler. ``place`` is ``file:line``, for messages."""

    name: str
    patterns: tuple[str, ...]
    function: Callable[..., Any]
    payload: TypeAdapter[Any]
    retry: Backoff
    final: tuple[type[BaseException], ...]
    place: str


class Handlers:
    """A collection of handlers; a package offers one under the entry-point group ``holdfast.handlers``."""

    def __init__(self) -> None:
        self._by_pattern: dict[str, Handler] = {}
        self._by_name: dict[str, Handler] = {}

    def on(
        self,
        *patterns: str,
        name: str,
        retry: Backoff = DEFAULT_BACKOFF,
        final: tuple[type[BaseException], ...] = (),
    ) -> Callable[[Function], Function]:
        """Declare a function the handler of event types.

        Args:
            patterns: event types; ``*`` stands for any run of characters. An exact type beats a pattern, a longer
                pattern a shorter one.
            name: stable: part of the idempotency key, of metrics and of the processed-event log.
            retry: when a failed attempt is tried again.
            final: exceptions after which it is not.

        Raises:
            ConfigurationError: a name or pattern that cannot be or is taken, or a function with another signature
                than ``(payload, ctx)``.
        """

        def register(function: Function) -> Function:
            self._add(_handler(function, patterns, name, retry, final))
            return function

        return register

    def include(self, other: "Handlers") -> None:
        """Take over another collection's handlers.

        Raises:
            ConfigurationError: both have the same name or pattern.
        """
        for handler in other:
            self._add(handler)

    def find(self, event_type: str) -> Handler | None:
        """The handler that serves a type, or ``None``."""
        if handler := self._by_pattern.get(event_type):
            return handler
        fitting = [pattern for pattern in self._by_pattern if "*" in pattern and _matches(pattern, event_type)]
        return self._by_pattern[max(fitting, key=lambda pattern: (len(pattern), pattern))] if fitting else None

    def __iter__(self) -> Any:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def _add(self, handler: Handler) -> None:
        if taken := self._by_name.get(handler.name):
            raise ConfigurationError(
                f"two handlers are named {handler.name!r}: {taken.place} and {handler.place}; rename one"
            )  # fmt: skip
        for pattern in handler.patterns:
            if taken := self._by_pattern.get(pattern):
                raise ConfigurationError(
                    f"two handlers claim {pattern!r}: {taken.name} at {taken.place} and {handler.name} at"
                    f" {handler.place}; exactly one handler serves a type"
                )
        self._by_name[handler.name] = handler
        self._by_pattern.update(dict.fromkeys(handler.patterns, handler))


def discover(path: str | None) -> Handlers:
    """The handlers to run: those at ``package.module:attribute``, else those of every installed package.

    Raises:
        ConfigurationError: nothing there, or not a :class:`Handlers`.
    """
    if path:
        return _checked(_load(path), path)
    found = Handlers()
    for entry in sorted(entry_points(group="holdfast.handlers"), key=lambda entry: entry.name):
        found.include(_checked(entry.load(), f"entry point holdfast.handlers/{entry.name}"))
    if not len(found):
        raise ConfigurationError(
            "no handlers: install a package with an entry point in the group holdfast.handlers,"
            " or set HOLDFAST_HANDLERS=package.module:handlers"
        )
    return found


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as exc:
        raise ConfigurationError(f"HOLDFAST_HANDLERS={path}: {exc}; it must be package.module:attribute") from exc


def _checked(found: Any, where: str) -> Handlers:
    if not isinstance(found, Handlers):
        raise ConfigurationError(f"{where} must name a holdfast.processor.Handlers, not {type(found).__name__}")
    return found


def _handler(
    function: Callable[..., Any],
    patterns: Iterable[str],
    name: str,
    retry: Backoff,
    final: tuple[type[BaseException], ...],
) -> Handler:
    code = inspect.unwrap(function).__code__
    place = f"{code.co_filename}:{code.co_firstlineno}"
    listed = tuple(patterns)
    if _NAME.fullmatch(name) is None:
        raise ConfigurationError(f"{place}: a handler's name is 1 to 100 letters, digits, dots, dashes and underscores")
    if not listed or any(_PATTERN.fullmatch(pattern) is None for pattern in listed):
        raise ConfigurationError(f"{place}: name at least one event type, of letters, digits, '.', '_', '-' and '*'")
    return Handler(name, listed, function, _payload(function, place), retry, final, place)


def _payload(function: Callable[..., Any], place: str) -> TypeAdapter[Any]:
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != 2 or any(parameter.kind not in (0, 1) for parameter in parameters):  # positional ones
        raise ConfigurationError(f"{place}: a handler takes two arguments, (payload: Model, ctx: Context)")
    if inspect.iscoroutinefunction(function):
        raise ConfigurationError(f"{place}: a handler is an ordinary function; run coroutines with asyncio.run inside")
    try:
        return TypeAdapter(get_type_hints(function).get(parameters[0].name, Any))
    except (NameError, PydanticUserError) as exc:
        raise ConfigurationError(f"{place}: the payload's annotation can not be used: {exc}") from exc


def _matches(pattern: str, event_type: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), event_type) is not None
