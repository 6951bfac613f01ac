"""What an attempt comes to. Pure: an exception in, the transition to apply out."""

import hashlib
import traceback
from collections.abc import Iterator
from types import TracebackType

from pydantic import ValidationError

from holdfast.domain.event import Lease
from holdfast.domain.retry import DEFAULT_BACKOFF, MAX_RETRY_SECONDS
from holdfast.domain.transitions import AttemptError, Transition, bury, fail
from holdfast.processor.handlers.registry import Handler

__all__ = ["HandlerTimeout", "InvalidData", "InvalidResult", "NoHandler", "Reject", "Retry", "failure", "quotes_values"]

MAX_MESSAGE = 500
"""Characters of an error's message; it travels to live clients."""

MAX_TRACEBACK = 20_000
"""Characters of a traceback, the innermost frames kept."""

MAX_CODE = 100

MAX_FAULTS = 20

FRAMES = 3
"""Innermost frames in a fingerprint: enough to tell two calls of one function apart."""

_TELLING_FAULTS = frozenset({"union_tag_invalid"})
"""Faults of pydantic whose message repeats the value that was sent."""


class Retry(Exception):
    """Raised by a handler: try again, ``after`` seconds from now (``None``: after the usual backoff).

    Counts as an attempt: when attempts are used up the event is a dead letter. At most a year.
    """

    def __init__(self, reason: str = "the handler asked for another attempt", *, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = None if after is None else min(MAX_RETRY_SECONDS, max(0.0, after))


class _Unprocessable(Exception):
    """The event is dead at once. ``code`` becomes the error's type."""

    code = "unprocessable"


class Reject(_Unprocessable):
    """Raised by a handler: this event will never succeed; it is a dead letter at once.

    Args:
        reason: for people. Live clients see it.
        code: for programs; becomes the error's type and a label of metrics, so it is a fixed word, not made from data.

    Raises:
        ValueError: the code is empty, longer than 100 characters, or has others than letters, digits, '.', '_' and '-'.
    """

    def __init__(self, reason: str, *, code: str = "rejected") -> None:
        super().__init__(reason)
        if len(code) > MAX_CODE or not code.isascii() or not code.translate({ord(c): "x" for c in "._-"}).isalnum():
            raise ValueError("a code is 1 to 100 letters, digits, dots, dashes and underscores")
        self.code = code


class InvalidData(_Unprocessable):
    """The event's data does not fit the handler's model. The message says where and why, and not what was sent."""

    code = "invalid_data"

    def __init__(self, error: ValidationError) -> None:
        super().__init__(_faults(error))


class InvalidResult(_Unprocessable):
    """A handler returned what can not be stored as JSON. Running it again would return the same."""

    code = "invalid_result"


class NoHandler(_Unprocessable):
    """Nobody serves this type. The event can be replayed once a handler is deployed."""

    code = "no_handler"


class HandlerTimeout(Exception):
    """The handler took longer than its ``timeout``. Tried again, as any failure."""

    code = "timeout"


def failure(exc: BaseException, lease: Lease, handler: Handler | None, *, draw: float, duration_ms: int) -> Transition:
    """The transition after a failed attempt: ``failed`` with a delay, or ``dead``.

    ``draw`` is uniform in [0, 1) and decides the jitter.
    """
    error = _error(exc, handler, duration_ms)
    backoff = handler.retry if handler else DEFAULT_BACKOFF
    if isinstance(exc, (_Unprocessable, *(handler.final if handler else ()))) or backoff.is_exhausted(lease.attempt):
        return bury(lease.event.id, lease.token, error)
    wished = exc.after if isinstance(exc, Retry) else None
    delay = backoff.delay_seconds(lease.attempt, draw=draw) if wished is None else wished
    return fail(lease.event.id, lease.token, error, delay_seconds=delay)


def quotes_values(exc: BaseException) -> bool:
    """Whether an error's text, or that of one that led to it, quotes data: pydantic's does. It must not be logged."""
    return any(isinstance(each, ValidationError) for each in _chain(exc, set()))


def _chain(exc: BaseException | None, seen: set[int]) -> Iterator[BaseException]:
    """The error and everything that a printed traceback would show with it."""
    if exc is None or id(exc) in seen:
        return
    seen.add(id(exc))
    yield exc
    yield from _chain(exc.__cause__, seen)
    if not exc.__suppress_context__:
        yield from _chain(exc.__context__, seen)
    if isinstance(exc, BaseExceptionGroup):
        for each in exc.exceptions:
            yield from _chain(each, seen)


def _error(exc: BaseException, handler: Handler | None, duration_ms: int) -> AttemptError:
    type_ = exc.code if isinstance(exc, _Unprocessable | HandlerTimeout) else type(exc).__qualname__
    # Where the handler has not run, or has ended, a traceback would show frames of Holdfast alone.
    is_handlers = not isinstance(exc, InvalidData | InvalidResult | NoHandler)
    text = "".join(traceback.format_exception(exc)) if is_handlers else ""
    return AttemptError(
        type=type_,
        message=_clean(_message(exc))[:MAX_MESSAGE],
        handler=handler.name if handler else None,
        traceback=_clean(text[-MAX_TRACEBACK:]) or None,
        fingerprint=_digest(type_, *(_places(exc.__traceback__, handler) if is_handlers else ())),
        duration_ms=duration_ms,
    )


def _message(exc: BaseException) -> str:
    """What live clients will see. Anything but pydantic's errors is taken to be written by the handler's author."""
    if isinstance(exc, ValidationError):
        return _faults(exc)
    try:
        return str(exc)
    except Exception:  # noqa: BLE001 (an exception's __str__ is anybody's code)
        return "the error has no message: its __str__ failed"


def _faults(exc: ValidationError) -> str:
    """Where and why, without the offending values: they are payload."""
    faults = exc.errors(include_url=False, include_input=False, include_context=False)[:MAX_FAULTS]
    told = (fault["type"] if fault["type"] in _TELLING_FAULTS else fault["msg"] for fault in faults)
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'data'}: {text}" for fault, text in zip(faults, told, strict=True)
    )


def _places(tb: TracebackType | None, handler: Handler | None) -> list[str]:
    """The innermost frames as ``module:function``, those of the handler's own package if there are any.

    No line numbers, which move with every edit, and no library frames, which move with every upgrade.
    """
    frames = [(frame.f_globals.get("__name__", ""), frame.f_code.co_name) for frame, _ in traceback.walk_tb(tb)]
    own = [frame for frame in frames if handler and frame[0].partition(".")[0] == handler.package]
    return [f"{module}:{function}" for module, function in (own or frames)[-FRAMES:]]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="replace")).hexdigest()[:16]


def _clean(text: str) -> str:
    """Text that PostgreSQL takes: no NUL, no half surrogate pairs."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
