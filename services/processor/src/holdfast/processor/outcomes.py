"""What an attempt comes to. Pure: an exception in, the transition to apply out."""

import hashlib
import traceback
from collections.abc import Sequence

from pydantic import ValidationError

from holdfast.domain.event import Lease
from holdfast.domain.retry import DEFAULT_BACKOFF
from holdfast.domain.transitions import AttemptError, Transition, bury, fail
from holdfast.processor.registry import Handler

__all__ = ["InvalidResult", "NoHandler", "Reject", "Retry", "failure"]

MAX_MESSAGE = 500
"""Characters of an error's message; it travels to live clients."""

MAX_TRACEBACK = 20_000
"""Characters of a traceback, the innermost frames kept."""

MAX_FAULTS = 20


class Retry(Exception):
    """Raised by a handler: try again, ``after`` seconds from now (``None``: after the usual backoff).

    Counts as an attempt: when attempts are used up the event is a dead letter.
    """

    def __init__(self, reason: str = "the handler asked for another attempt", *, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = None if after is None else max(0.0, float(after))


class Reject(Exception):
    """Raised by a handler: this event will never succeed; it is a dead letter at once.

    Args:
        reason: for people.
        code: for programs; becomes the error's type.
    """

    def __init__(self, reason: str, *, code: str = "rejected") -> None:
        super().__init__(reason)
        self.code = code


class InvalidResult(Exception):
    """A handler returned what can not be stored as JSON. Final: running it again returns the same."""


class NoHandler(Exception):
    """Nobody serves this type. The event can be replayed once a handler is deployed."""


def failure(exc: BaseException, lease: Lease, handler: Handler | None, *, draw: float, duration_ms: int) -> Transition:
    """The transition after a failed attempt: ``failed`` with a delay, or ``dead``.

    ``draw`` is uniform in [0, 1) and decides the jitter.
    """
    error = _error(exc, handler, duration_ms)
    backoff = handler.retry if handler else DEFAULT_BACKOFF
    if _is_final(exc, handler) or backoff.is_exhausted(lease.attempt):
        return bury(lease.event.id, lease.token, error)
    wished = exc.after if isinstance(exc, Retry) else None
    delay = backoff.delay_seconds(lease.attempt, draw=draw) if wished is None else wished
    return fail(lease.event.id, lease.token, error, delay_seconds=delay)


def _is_final(exc: BaseException, handler: Handler | None) -> bool:
    is_invalid = isinstance(exc, ValidationError) and getattr(exc, "is_payload", False)
    return is_invalid or isinstance(exc, (Reject, NoHandler, InvalidResult, *(handler.final if handler else ())))


def _error(exc: BaseException, handler: Handler | None, duration_ms: int) -> AttemptError:
    name = handler.name if handler else None
    type_, message = _naming(exc)
    if isinstance(exc, NoHandler | Reject) or type_ == "invalid_data":
        # The author's or operator's decision: a traceback would show our own frames only.
        return AttemptError(
            type_, _clean(message, MAX_MESSAGE), name, fingerprint=_digest(type_), duration_ms=duration_ms
        )
    frames = traceback.extract_tb(exc.__traceback__)
    text = "".join(traceback.format_exception(exc))
    return AttemptError(
        type_, _clean(message, MAX_MESSAGE), name, _clean(text[-MAX_TRACEBACK:], MAX_TRACEBACK),
        _fingerprint(type_, frames), duration_ms,
    )  # fmt: skip


def _naming(exc: BaseException) -> tuple[str, str]:
    if isinstance(exc, Reject):
        return exc.code, str(exc)
    if isinstance(exc, NoHandler):
        return "no_handler", str(exc)
    if isinstance(exc, InvalidResult):
        return "invalid_result", str(exc)
    if isinstance(exc, ValidationError) and getattr(exc, "is_payload", False):
        return "invalid_data", _faults(exc)
    return type(exc).__qualname__, str(exc)


def _faults(exc: ValidationError) -> str:
    """Where and why, without the offending values: they are payload."""
    faults = exc.errors(include_url=False, include_input=False, include_context=False)[:MAX_FAULTS]
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'data'}: {fault['msg']}" for fault in faults)


def _fingerprint(type_: str, frames: Sequence[traceback.FrameSummary]) -> str:
    """Equal for failures at one place: files and functions, no line numbers, which move with every edit."""
    return _digest(type_, *(f"{frame.filename.rpartition('/')[2]}:{frame.name}" for frame in frames[-5:]))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="replace")).hexdigest()[:16]


def _clean(text: str, limit: int) -> str:
    """Text that PostgreSQL takes: no NUL, no half surrogate pairs."""
    return text[:limit].replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
