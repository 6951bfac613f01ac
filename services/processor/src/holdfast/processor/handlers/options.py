"""What the options of a handler may be. Checked when it is declared, so that no event has to find out."""

import re
from typing import Any

from holdfast.domain.errors import ConfigurationError
from holdfast.domain.retry import Backoff

__all__ = ["FAN_OUT_NAME", "check_also", "check_async", "check_batch", "check_declared", "check_running"]

FAN_OUT_NAME = "holdfast.fan-out"
"""Of Holdfast's own handler, see ``registry.FAN_OUT``."""

MAX_TIMEOUT_SECONDS = 24 * 3600.0

MAX_BATCH = 100
"""Events in one transaction: they are all locked until its end."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


def check_declared(place: str, patterns: tuple[Any, ...], name: Any, retry: Any, final: Any) -> None:
    """A handler's name, patterns, retry and final exceptions.

    Raises:
        ConfigurationError: one of them cannot be.
    """
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ConfigurationError(f"{place}: a handler's name is 1 to 100 letters, digits, dots, dashes and underscores")
    if name == FAN_OUT_NAME:
        raise ConfigurationError(f"{place}: {name!r} is Holdfast's own; choose another name")
    if not patterns or not all(isinstance(each, str) and each and each.isprintable() for each in patterns):
        raise ConfigurationError(f"{place}: name at least one event type; a type is a text without control characters")
    if not isinstance(retry, Backoff):
        raise ConfigurationError(f"{place}: retry takes a Backoff, such as Backoff(first=2, attempts=5)")
    is_tuple = isinstance(final, tuple)
    if not is_tuple or not all(isinstance(each, type) and issubclass(each, Exception) for each in final):
        raise ConfigurationError(f"{place}: final takes a tuple of exception types, such as (ValueError,)")


def check_running(place: str, timeout: Any, transactional: Any, ordering: Any) -> None:
    """How it runs.

    Raises:
        ConfigurationError: one of them cannot be.
    """
    is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not is_number or not 0 < timeout <= MAX_TIMEOUT_SECONDS:
        raise ConfigurationError(f"{place}: timeout takes seconds, more than 0 and at most a day, such as timeout=30")
    if not isinstance(transactional, bool | None):
        raise ConfigurationError(f"{place}: transactional takes True or False")
    if ordering not in (None, "subject"):
        raise ConfigurationError(f'{place}: ordering takes "subject" or None')


def check_async(place: str, batch: Any, is_transactional: bool) -> None:
    """What has a session would have every other handler of the event loop wait for its statements."""
    if is_transactional:
        raise ConfigurationError(
            f"{place}: an async def handler runs without a transaction, since ctx.session would hold up the event loop;"
            " declare the handler with def, or leave out transactional=True"
        )
    if batch != 1:
        raise ConfigurationError(
            f"{place}: batch shares a transaction, which an async def handler has none of; many of them run at once anyway:"
            " leave out batch, or declare the handler with def"
        )


def check_also(place: str, also: Any, ordering: Any) -> None:
    """Whether it is beside another one.

    Raises:
        ConfigurationError: one of them cannot be.
    """
    if not isinstance(also, bool):
        raise ConfigurationError(f"{place}: also takes True or False")
    if also and ordering is not None:
        raise ConfigurationError(
            f"{place}: events are not made for an also=True handler in the order in which those they are made of arrived;"
            " leave out ordering, or make it the type's one handler"
        )


def check_batch(place: str, batch: Any, transactional: bool, is_bulk: bool) -> None:
    """How many events it takes at once.

    Raises:
        ConfigurationError: one of them cannot be.
    """
    is_number = isinstance(batch, int) and not isinstance(batch, bool)
    if not is_number or not 1 <= batch <= MAX_BATCH:
        raise ConfigurationError(f"{place}: batch takes a whole number from 1 to {MAX_BATCH}, such as batch=50")
    if is_bulk and batch == 1:
        raise ConfigurationError(f"{place}: say how many events it takes at once, such as batch=50")
    if batch > 1 and not transactional:
        raise ConfigurationError(
            f"{place}: batch shares a transaction, which transactional=False does without; leave one of them out"
        )
