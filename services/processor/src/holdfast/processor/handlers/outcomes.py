"""What an attempt comes to. Pure: an exception in, the transition to apply out."""

import hashlib

from pydantic import ValidationError

from holdfast.domain.errors import KeyMissing
from holdfast.domain.event import Lease
from holdfast.domain.event_types import read_route
from holdfast.domain.retry import DEFAULT_BACKOFF, MAX_RETRY_SECONDS
from holdfast.domain.transitions import AttemptError, Transition, await_key, bury, cancel, fail, sleep, snooze
from holdfast.processor.handlers.registry import Handler
from holdfast.processor.handlers.reports import Coded, Report, faults_of, is_code, report_of
from holdfast.processor.handlers.steps import Sleeping

__all__ = [
    "DataLocked",
    "EventCancelled",
    "HandlerTimeout",
    "InvalidData",
    "InvalidResult",
    "NoHandler",
    "Reject",
    "Retry",
    "Snooze",
    "TransactionAborted",
    "TransactionEnded",
    "UnreadableData",
    "failure",
    "missing_handler",
]

LEAST_KEY_SECONDS, MOST_KEY_SECONDS = 30.0, 600.0
"""Between two looks at an event whose data is sealed under a key that is not here: as long as it has waited, within these."""


class Retry(Coded):
    """Raised by a handler: try again, ``after`` seconds from now (``None``: after the usual backoff).

    Counts as an attempt: when attempts are used up the event is a dead letter. At most a year. Live clients see the reason.
    """

    is_for_clients = True
    after: float | None = None

    def __init__(self, reason: str = "the handler asked for another attempt", *, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = None if after is None else min(MAX_RETRY_SECONDS, max(0.0, after))


class Snooze(Exception):
    """Raised by a handler: not now, but ``after`` seconds from now. What it has written is rolled back.

    Nothing has failed: no attempt is spent and no error is recorded, so an event can be put off any number of times.
    At most a year each time.

    Raises:
        ValueError: it is not a number of seconds from 0 on.
    """

    def __init__(self, after: float) -> None:
        if isinstance(after, bool) or not isinstance(after, int | float) or not after >= 0:
            raise ValueError(
                f"an event is put off for a number of seconds from 0 on, such as Snooze(60); not {after!r}"
            )
        super().__init__(f"put off for {after:g} s")
        self.after = min(MAX_RETRY_SECONDS, float(after))


class _Unprocessable(Coded):
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

    code = "rejected"
    is_for_clients = True

    def __init__(self, reason: str, *, code: str = "rejected") -> None:
        super().__init__(reason)
        if not is_code(code):
            raise ValueError("a code is 1 to 100 letters, digits, dots, dashes and underscores")
        self.code = code


class InvalidData(_Unprocessable):
    """The event's data does not fit the handler's model. The message says where and why, and not what was sent."""

    code = "invalid_data"
    has_place = False

    def __init__(self, error: ValidationError) -> None:
        super().__init__(faults_of(error))


class UnreadableData(_Unprocessable):
    """The event's data was sealed and does not open any more. It can be replayed once its row is restored."""

    code = "data_unreadable"
    has_place = False


class DataLocked(Coded):
    """The event's data is sealed, and this process lacks the key. The event waits; nothing is held against it."""

    code = "key_missing"
    has_place = False


class InvalidResult(_Unprocessable):
    """A handler returned what cannot be stored as JSON. Running it again would return the same."""

    code = "invalid_result"
    has_place = False


class NoHandler(_Unprocessable):
    """Nobody serves this type. The event can be replayed once a handler is deployed."""

    code = "no_handler"
    is_for_clients = True
    has_place = False


class HandlerTimeout(Coded):
    """The handler took longer than its ``timeout``. Tried again, as any failure."""

    code = "timeout"
    is_for_clients = True


class EventCancelled(Coded):
    """An operator, ``by``, has cancelled the event while its handler ran. It is discarded, whatever the handler did then."""

    code = "cancelled"
    has_place = False

    def __init__(self, by: str) -> None:
        super().__init__("an operator has cancelled the event")
        self.by = by


def missing_handler(route: str) -> str:
    """What a ``NoHandler`` says of an event of this route."""
    event_type, name = read_route(route)
    missing = f"no handler for {event_type}" if name is None else f"no handler named {name}, for which it was made"
    return f"{missing}; deploy one and replay the event"


class TransactionAborted(Coded):
    """A statement failed, the handler went on, and nothing of the transaction can be committed. Tried again.

    Its cause is the error that the handler did not let out; its frames are that error's.
    """

    code = "transaction_aborted"

    def __init__(self, message: str, cause: BaseException | None) -> None:
        super().__init__(message)
        self.__cause__ = cause
        self.__traceback__ = cause.__traceback__ if cause else None


class TransactionEnded(_Unprocessable):
    """The handler ended the transaction that its effects belong to, so some of them may be in the database already.

    Another attempt could apply them again: the event is dead until an operator has looked.
    """

    code = "transaction_ended"
    is_for_clients = True


def failure(
    exc: BaseException,
    lease: Lease,
    handler: Handler | None,
    *,
    draw: float,
    duration_ms: int,
    report: Report | None = None,
) -> Transition:
    """The transition after an attempt that raised: ``failed`` with a delay, ``dead``, ``queued`` for later (`Snooze`, a sleep
    between steps), or ``discarded`` (`EventCancelled`).

    ``draw`` is uniform in [0, 1) and decides the jitter. ``report`` describes the error, if that has been done already.
    """
    if isinstance(exc, EventCancelled):
        name = handler.name if handler else None
        return cancel(lease.event.id, lease.token, by=exc.by, handler=name, duration_ms=duration_ms)
    if isinstance(exc, Snooze) and (after := _delay(exc.after)) is not None:
        return snooze(lease.event.id, lease.token, delay_seconds=after)
    if isinstance(exc, DataLocked | KeyMissing):
        waited = (lease.claimed_at - lease.event.due_since).total_seconds()
        return await_key(
            lease.event.id, lease.token, delay_seconds=min(MOST_KEY_SECONDS, max(LEAST_KEY_SECONDS, waited))
        )
    if isinstance(exc, Sleeping):
        return sleep(lease.event.id, lease.token, delay_seconds=min(MAX_RETRY_SECONDS, exc.after))
    error = _error(report or report_of(exc, package=handler.package if handler else None), handler, duration_ms)
    backoff = handler.retry if handler else DEFAULT_BACKOFF
    if isinstance(exc, (_Unprocessable, *(handler.final if handler else ()))) or backoff.is_exhausted(lease.attempt):
        return bury(lease.event.id, lease.token, error)
    requested = _delay(exc.after) if isinstance(exc, Retry) else None
    delay = backoff.delay_seconds(lease.attempt, draw=draw) if requested is None else requested
    return fail(lease.event.id, lease.token, error, delay_seconds=delay)


def _delay(after: object) -> float | None:
    """A subclass of ``Retry`` may have set anything."""
    if not isinstance(after, int | float) or after != after:
        return None
    return float(min(MAX_RETRY_SECONDS, max(0.0, after)))


def _error(report: Report, handler: Handler | None, duration_ms: int) -> AttemptError:
    return AttemptError(
        type=report.type,
        message=report.message,
        reason=report.reason,
        handler=handler.name if handler else None,
        traceback=report.traceback,
        fingerprint=_digest(report.type, *report.places),
        duration_ms=duration_ms,
    )


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="replace")).hexdigest()[:16]
