"""Recording a failure never fails and is bounded, whatever a handler's errors, validators and results do."""

import sys
from collections.abc import Callable
from typing import Annotated, Any
from uuid import UUID

import pytest
from pydantic import AfterValidator, BaseModel
from sqlalchemy import text

from holdfast.processor import Backoff, Context, Handlers, Reject, Retry
from holdfast.processor.handlers.outcomes import HandlerTimeout
from holdfast.processor.handlers.reports import report_of
from holdfast.runtime.telemetry import Metrics
from holdfast.runtime.tracebacks import MAX_MESSAGE, MAX_TRACEBACK, MAX_TYPE

MakeExecutor = Callable[..., Any]
Handle = Callable[..., UUID]


@pytest.fixture
def handle(stored: Any, executor: MakeExecutor) -> Handle:
    """Execute one event once; a failure makes it a dead letter."""

    def run(function: Callable[..., Any], *, attempts: int = 1, timeout: float = 60, data: Any = None) -> UUID:
        handlers = Handlers()
        handlers.on("test.done", name="handler", retry=Backoff(attempts=attempts), timeout=timeout)(function)
        event_id: UUID = stored.record("test.done", data)
        made = executor(handlers)
        made.start()
        made.execute(event_id, 1)
        made.stop()
        return event_id

    return run


def raising(exc: BaseException) -> Callable[..., Any]:
    def where_it_happened(data: Any, ctx: Context) -> None:  # noqa: ARG001
        raise exc

    return where_it_happened


def chained(count: int) -> BaseException:
    exc: BaseException = KeyError("first")
    for number in range(count):
        later = ValueError(f"number {number}")
        later.__cause__ = exc
        exc = later
    return exc


def grouped(depth: int) -> BaseException:
    exc: BaseException = ValueError("innermost")
    for _ in range(depth):
        exc = BaseExceptionGroup("several", [exc])
    return exc


class Silent(Exception):
    def __str__(self) -> str:
        sys.exit(1)


class Numeric(Exception):
    def __str__(self) -> Any:
        return 7


NAMELESS = type("E" * 5_000, (Exception,), {})


@pytest.mark.parametrize(
    "exc",
    [
        chained(1_500), grouped(1_000), ValueError("x" * 50_000), ValueError("x" * 5_000_000), ValueError("\0\ud800"),
        Silent(), Numeric(), NAMELESS("x"), SystemExit(1), KeyboardInterrupt(), GeneratorExit(), StopIteration(),
        RecursionError("deep"), MemoryError(), BaseException("x"), type("Own", (BaseException,), {})(),
    ],
    ids=lambda exc: type(exc).__name__[:20],
)  # fmt: skip
def test_whatever_is_raised_the_event_is_a_dead_letter_that_is_logged_and_counted(
    stored: Any, handle: Handle, log_text: Callable[[], str], exc: BaseException
) -> None:
    event_id = handle(raising(exc))

    error = stored.error(event_id)
    assert stored.state(event_id) == "dead"
    assert "in where_it_happened" in error.traceback
    assert (len(error.message) <= MAX_MESSAGE, len(error.traceback) <= MAX_TRACEBACK) == (True, True)
    assert 0 < len(error.error_type) <= MAX_TYPE
    logged = log_text()
    assert "event is dead" in logged
    assert "in where_it_happened" in logged
    assert len(logged) < 30_000
    assert Metrics.dead_letters.labels(error.handler, error.error_type)._value.get() >= 1


def test_a_handler_that_runs_out_of_stack_is_a_dead_letter(stored: Any, handle: Handle) -> None:
    def recurse(data: Any, ctx: Context) -> None:
        recurse(data, ctx)

    event_id = handle(recurse)

    assert (stored.state(event_id), stored.error(event_id).error_type) == ("dead", "RecursionError")


class Endless(Exception):
    def __str__(self) -> str:
        while True:
            pass


def test_an_error_that_takes_for_ever_to_say_what_it_is_ends_with_its_handlers_time(
    stored: Any, handle: Handle
) -> None:
    event_id = handle(raising(Endless()), timeout=0.3)

    error = stored.error(event_id)
    assert (stored.state(event_id), error.error_type) == ("dead", "timeout")
    assert "in where_it_happened" in error.traceback


def leave_the_process(value: Any) -> Any:  # noqa: ARG001
    sys.exit(3)


def wait_for_ever(value: Any) -> Any:  # noqa: ARG001
    while True:
        pass


class Leaving(BaseModel):
    x: Annotated[int, AfterValidator(leave_the_process)]


class Waiting(BaseModel):
    x: Annotated[int, AfterValidator(wait_for_ever)]


def leaving(data: Leaving, ctx: Context) -> None:
    """Never called."""


def waiting(data: Waiting, ctx: Context) -> None:
    """Never called."""


@pytest.mark.parametrize(("handler", "told"), [(leaving, "SystemExit"), (waiting, "timeout")])
def test_a_payloads_validators_are_the_handlers_code(
    stored: Any, handle: Handle, handler: Callable[..., Any], told: str
) -> None:
    event_id = handle(handler, timeout=0.5, data={"x": 1})

    assert (stored.state(event_id), stored.error(event_id).error_type) == ("dead", told)


class Result(dict[str, Any]):
    """JSON is made of it by calling this."""

    def __init__(self, reading: Callable[[Any], Any]) -> None:
        super().__init__(a=1)
        self.reading = reading

    def items(self) -> Any:
        return self.reading(None)


def fail(_: Any) -> None:
    raise KeyError("x")


@pytest.mark.parametrize(
    ("reading", "told"), [(leave_the_process, "SystemExit"), (wait_for_ever, "timeout"), (fail, "KeyError")]
)
def test_making_json_of_a_result_is_the_handlers_code(
    stored: Any, handle: Handle, reading: Callable[[Any], Any], told: str
) -> None:
    event_id = handle(lambda data, ctx: Result(reading), timeout=0.5)  # noqa: ARG005

    assert (stored.state(event_id), stored.error(event_id).error_type) == ("dead", told)


class Later(Retry):
    def __init__(self) -> None:
        """Forgets to call the one it overrides."""


class Odd(Retry):
    after = "soon"  # type: ignore[assignment]


class NotNow(Reject):
    code = 7  # type: ignore[assignment]

    def __init__(self) -> None:
        """Forgets too."""


@pytest.mark.parametrize(
    ("exc", "state", "told"), [(Later(), "failed", "Later"), (Odd(), "failed", "Odd"), (NotNow(), "dead", "NotNow")]
)
def test_kinds_of_retry_and_reject_may_be_careless(
    stored: Any, handle: Handle, exc: Exception, state: str, told: str
) -> None:
    event_id = handle(raising(exc), attempts=5)

    assert (stored.state(event_id), stored.error(event_id).error_type) == (state, told)


CARD = "4111-1111-s3cret"


def read_card(data: dict[str, Any], ctx: Context) -> int:  # noqa: ARG001
    return int(data["card"])


def look_card_up(data: dict[str, Any], ctx: Context) -> None:
    ctx.session.execute(text("INSERT INTO effect VALUES (:card, '')"), {"card": data["card"]})


class Card(BaseModel):
    number: int


def check_card(data: dict[str, Any], ctx: Context) -> None:  # noqa: ARG001
    Card.model_validate({"number": data["card"]})


def fit_card(data: Card, ctx: Context) -> None:
    """Never called: the data does not fit."""


def return_card(data: dict[str, Any], ctx: Context) -> Any:  # noqa: ARG001
    class Named:
        pass

    Named.__name__ = Named.__qualname__ = data["card"]
    return Named()


@pytest.mark.parametrize("handler", [read_card, look_card_up, check_card, fit_card, return_card])
@pytest.mark.parametrize("attempts", [1, 2])
def test_what_an_exception_quotes_reaches_neither_clients_nor_the_log(
    stored: Any, live: Any, handle: Handle, log_text: Callable[[], str], handler: Any, attempts: int
) -> None:
    event_id = handle(handler, attempts=attempts, data={"card": CARD, "number": CARD})

    told = live.published(event_id)[-1]
    assert told["state"] == stored.state(event_id) != "processed"
    assert told["detail"]["error"] == {"type": stored.error(event_id).error_type, "message": None}
    assert CARD not in str(live.published(event_id))
    assert CARD not in str(stored.rows("SELECT detail FROM event_update WHERE event_id = :id", event_id))
    assert CARD not in log_text()


def test_an_operator_finds_in_the_database_what_the_exception_said(stored: Any, handle: Handle) -> None:
    event_id = handle(read_card, data={"card": CARD})

    assert CARD in stored.error(event_id).message
    assert CARD in stored.error(event_id).traceback
    assert CARD in stored.row(event_id).last_error["message"]


@pytest.mark.parametrize(("exc", "type_"), [(Reject("sold out", code="gone"), "gone"), (Retry("ask later"), "Retry")])
def test_the_reason_of_a_reject_or_retry_is_for_clients(
    stored: Any, live: Any, handle: Handle, exc: Exception, type_: str
) -> None:
    event_id = handle(raising(exc), attempts=3)

    assert live.published(event_id)[-1]["detail"]["error"] == {"type": type_, "message": str(exc)}
    assert stored.row(event_id).last_error["reason"] == str(exc)


def test_what_led_to_a_reject_is_not_for_clients(live: Any, handle: Handle) -> None:
    def reject(data: dict[str, Any], ctx: Context) -> None:
        try:
            read_card(data, ctx)
        except ValueError as exc:
            raise Reject("not a card number", code="bad_card") from exc

    event_id = handle(reject, data={"card": CARD})

    assert live.published(event_id)[-1]["detail"]["error"] == {"type": "bad_card", "message": "not a card number"}
    assert CARD not in str(live.published(event_id))


def test_an_interruption_that_comes_late_does_not_change_what_a_timeout_is_called() -> None:
    class Late(HandlerTimeout):
        asked = 0

        @property
        def code(self) -> str:  # type: ignore[override]
            self.asked += 1
            if self.asked == 1:
                raise KeyboardInterrupt
            return "timeout"

    report = report_of(Late("took too long"), package=None, with_texts=False)

    assert (report.type, report.message) == ("timeout", "took too long")
