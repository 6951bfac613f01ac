"""What an attempt comes to, without a server."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import uuid4

import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from holdfast.domain.event import Lease, StoredEvent
from holdfast.domain.retry import MAX_RETRY_SECONDS
from holdfast.domain.state import State
from holdfast.domain.transitions import AttemptError, Transition
from holdfast.processor import Backoff, Context, Handler, Handlers, Reject, Retry
from holdfast.processor.handlers.outcomes import InvalidData, NoHandler, failure

MOMENT = datetime(2026, 11, 24, tzinfo=UTC)


def handle(data: Any, ctx: Context) -> None:
    """Do nothing."""


def a_handler(**options: Any) -> Handler:
    handlers = Handlers()
    handlers.on("test.done", name="handler", **options)(handle)
    return next(iter(handlers))


def a_lease(attempt: int = 1) -> Lease:
    event = StoredEvent(
        id=uuid4(), tenant="t", source="/s", ce_id="1", type="test.done", subject=None, time=None, audience=None,
        datacontenttype=None, dataschema=None, extensions={}, content=None, is_json=False, traceparent=None,
        received_at=MOMENT,
    )  # fmt: skip
    return Lease(event=event, token=uuid4(), version=2, attempt=attempt, crashes=0, seconds=30, claimed_at=MOMENT)


def after(exc: BaseException, *, attempt: int = 1, draw: float = 0.5, **options: Any) -> Transition:
    return failure(exc, a_lease(attempt), a_handler(**options), draw=draw, duration_ms=7)


def error_of(exc: BaseException) -> AttemptError:
    error = after(exc).error
    assert error is not None
    return error


def raised(function: Callable[[], Any]) -> BaseException:
    try:
        function()
    except BaseException as exc:  # noqa: BLE001
        return exc
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(("attempt", "draw", "delay"), [(1, 0.0, 0), (1, 0.5, 5), (2, 0.5, 7.5), (3, 0.999, 14.985)])
def test_the_wait_is_drawn_from_nothing_up_to_the_ceiling(attempt: int, draw: float, delay: float) -> None:
    backoff = Backoff(first=10, factor=2, cap=15, attempts=9)

    transition = after(ValueError("x"), attempt=attempt, draw=draw, retry=backoff)

    assert transition.to_state is State.FAILED
    assert transition.delay_seconds == pytest.approx(delay)


def test_the_last_attempt_is_a_dead_letter_with_its_error() -> None:
    transition = after(ValueError("x"), attempt=3, retry=Backoff(attempts=3))

    assert transition.to_state is State.DEAD
    assert transition.error is not None
    assert (transition.error.type, transition.error.message) == ("ValueError", "x")


@pytest.mark.parametrize(
    ("wished", "delay"),
    [(90, 90), (0, 0), (-5, 0), (float("nan"), 0), (float("inf"), MAX_RETRY_SECONDS)],
)
def test_retry_chooses_the_wait_within_what_a_database_can_hold(wished: float, delay: float) -> None:
    assert after(Retry("later", after=wished)).delay_seconds == delay


def test_retry_without_a_time_waits_as_usual() -> None:
    assert after(Retry(), retry=Backoff(first=10)).delay_seconds == 5


def test_retry_counts_as_an_attempt() -> None:
    assert after(Retry(after=1), attempt=2, retry=Backoff(attempts=2)).to_state is State.DEAD


@pytest.mark.parametrize("exc", [Reject("no"), KeyError("x"), LookupError("x")])
def test_final_errors_and_their_kinds_are_dead_letters_at_once(exc: Exception) -> None:
    assert after(exc, final=(LookupError,)).to_state is State.DEAD


@pytest.mark.parametrize("code", ["", "bad amount", "x" * 101, "é", "a\0"])
def test_a_reject_code_is_a_word(code: str) -> None:
    with pytest.raises(ValueError, match="a code is"):
        Reject("no", code=code)


def test_no_handler_has_no_retries() -> None:
    transition = failure(NoHandler("none"), a_lease(), None, draw=0.5, duration_ms=0)

    assert transition.to_state is State.DEAD
    assert transition.error is not None
    assert (transition.error.type, transition.error.handler, transition.error.traceback) == ("no_handler", None, None)


class Card(BaseModel):
    kind: Literal["card"]
    number: int


class Cash(BaseModel):
    kind: Literal["cash"]


Payment = TypeAdapter[Any](Annotated[Card | Cash, Field(discriminator="kind")])


@pytest.mark.parametrize("data", [{"kind": "card", "number": "s3cret"}, {"kind": "s3cret"}, "s3cret", {}])
def test_no_value_of_the_data_is_told(data: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        Payment.validate_python(data)
    error = error_of(InvalidData(caught.value))

    assert error.type == "invalid_data"
    assert "s3cret" not in str(error)


def test_a_fault_is_told_with_its_place() -> None:
    with pytest.raises(ValidationError) as caught:
        Payment.validate_python({"kind": "card", "number": "x"})

    assert error_of(InvalidData(caught.value)).message.startswith("card.number: Input should be a valid integer")


def test_a_handlers_own_validation_error_tells_clients_no_value_either() -> None:
    exc = raised(lambda: Payment.validate_python({"kind": "card", "number": "s3cret"}))

    error = error_of(exc)

    assert error.type == "ValidationError"
    assert "s3cret" not in error.message


def fail_here(how: str) -> None:
    if how == "one":
        raise ValueError("1")
    raise ValueError("2")


def fail_there() -> None:
    raise ValueError("1")


def fail_in_the_library(text: str) -> None:
    TypeAdapter(int).validate_python(text)


def test_a_fingerprint_is_a_place_and_a_type_whatever_line_or_message() -> None:
    here, same, there = (
        error_of(raised(function)).fingerprint
        for function in (lambda: fail_here("one"), lambda: fail_here("two"), fail_there)
    )

    assert here == same
    assert here != there


def test_frames_of_libraries_are_not_in_a_fingerprint() -> None:
    def deep(depth: int) -> Any:
        import json

        return json.loads("{" * depth)

    assert error_of(raised(lambda: deep(1))).fingerprint == error_of(raised(lambda: deep(3))).fingerprint


def test_rejects_at_two_places_are_told_apart() -> None:
    def here() -> None:
        raise Reject("no", code="x")

    def there() -> None:
        raise Reject("no", code="x")

    assert error_of(raised(here)).fingerprint != error_of(raised(there)).fingerprint
