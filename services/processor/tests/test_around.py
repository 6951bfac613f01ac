# ruff: noqa: ARG001, ARG005 (shapes that are required, arguments that are not used)
"""What is put around handlers: where it runs, in which order, and what becomes of its own mistakes."""

import functools
import os
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel
from sqlalchemy import text

from holdfast.domain.errors import ConfigurationError
from holdfast.processor import Attempt, Backoff, Context, Handlers, Reject

Call = Callable[[], Any]
Handle = Callable[..., UUID]

AT_ONCE = Backoff(first=0, cap=0, attempts=3)


class Order(BaseModel):
    order_id: str


@pytest.fixture
def handle(stored: Any, executor: Callable[..., Any]) -> Handle:
    """Execute one event of type ``test.order`` with these handlers, as often as it is due."""

    def run(handlers: Handlers, attempts: int = 1) -> UUID:
        event_id: UUID = stored.record("test.order", {"order_id": "7"})
        made = executor(handlers)
        for _ in range(attempts):
            stored.make_due()
            made.execute(event_id, stored.row(event_id).version)
        return event_id

    return run


def noting(notes: list[str], name: str) -> Callable[[Attempt, Call], Any]:
    """An around function that notes its begin and end."""

    def around(attempt: Attempt, call: Call) -> Any:
        notes.append(f"{name} begins")
        result = call()
        notes.append(f"{name} ends")
        return result

    return around


def leave_effect(ctx: Context) -> None:
    ctx.session.execute(text("INSERT INTO effect VALUES (:id, '')"), {"id": ctx.event.id})


def one_handler(*arounds: Callable[..., Any], **options: Any) -> Handlers:
    """A handler that leaves an effect, within these."""
    handlers = Handlers()

    @handlers.on("test.order", name="order", retry=AT_ONCE, **options)
    def order(payload: Order, ctx: Context) -> str:
        if handlers.find("test.order").is_transactional:  # type: ignore[union-attr]
            leave_effect(ctx)
        return payload.order_id

    for around in arounds:
        handlers.around(around)
    return handlers


def test_the_first_is_outermost_and_an_including_collections_are_outside(stored: Any, handle: Handle) -> None:
    notes: list[str] = []
    inner = one_handler(noting(notes, "second"), noting(notes, "third"))
    outer = Handlers()
    outer.include(inner)
    outer.around(noting(notes, "first"))  # later than include, and yet around it
    inner.around(noting(notes, "fourth"))

    event_id = handle(outer)

    order = ["first", "second", "third", "fourth"]
    assert notes == [*(f"{each} begins" for each in order), *(f"{each} ends" for each in reversed(order))]
    assert (stored.state(event_id), stored.effects(event_id)) == ("processed", 1)


def test_the_included_collection_keeps_to_its_own(stored: Any, handle: Handle) -> None:
    notes: list[str] = []
    inner = one_handler()
    outer = Handlers()
    outer.around(noting(notes, "outer"))
    outer.include(inner)

    assert stored.state(handle(inner)) == "processed"

    assert notes == []


def test_it_has_the_handlers_name_payload_and_context_and_changes_the_result(stored: Any, handle: Handle) -> None:
    seen: list[Attempt] = []

    def around(attempt: Attempt, call: Call) -> Any:
        seen.append(attempt)
        return {"order": call(), "tenant": attempt.context.event.tenant}

    event_id = handle(one_handler(around))

    assert [log.result for log in stored.log(event_id)] == [{"order": "7", "tenant": "acme"}]
    assert [(each.handler, each.payload, each.context.attempt) for each in seen] == [("order", Order(order_id="7"), 1)]


def test_it_writes_in_the_transaction_of_the_effects(stored: Any, handle: Handle) -> None:
    def around(attempt: Attempt, call: Call) -> Any:
        leave_effect(attempt.context)
        return call()

    assert stored.effects(handle(one_handler(around))) == 2


@pytest.mark.parametrize("is_after", [False, True])
def test_what_it_raises_fails_the_attempt_and_takes_the_effects_back(
    stored: Any, handle: Handle, is_after: bool
) -> None:
    def around(attempt: Attempt, call: Call) -> Any:
        result = call() if is_after else None
        if attempt.context.attempt == 1:
            raise ConnectionError("the tracer is away")
        return result if is_after else call()

    event_id = handle(one_handler(around), attempts=2)

    assert stored.error(event_id).error_type == "ConnectionError"
    assert (stored.state(event_id), stored.effects(event_id)) == ("processed", 1)


def test_it_keeps_an_event_from_its_handler_by_a_rejection(stored: Any, handle: Handle) -> None:
    def around(attempt: Attempt, call: Call) -> Any:
        raise Reject("this tenant is closed", code="closed")

    event_id = handle(one_handler(around))

    assert (stored.state(event_id), stored.effects(event_id)) == ("dead", 0)
    assert stored.error(event_id).error_type == "closed"


def test_it_sees_what_the_handler_raises_and_the_first_outcome_stays(stored: Any, handle: Handle) -> None:
    raised: list[str] = []

    def around(attempt: Attempt, call: Call) -> Any:
        try:
            return call()
        except Reject as exc:
            raised.append(str(exc))
            raise

    handlers = Handlers()
    handlers.around(around)

    @handlers.on("test.order", name="order")
    def refuse(payload: Order, ctx: Context) -> None:
        raise Reject("sold out")

    assert stored.state(handle(handlers)) == "dead"
    assert raised == ["sold out"]


def twice(attempt: Attempt, call: Call) -> Any:
    call()
    return call()


def never(attempt: Attempt, call: Call) -> Any:
    return None


@pytest.mark.parametrize(("around", "told"), [(twice, "once only"), (never, "returned without call()")])
@pytest.mark.parametrize("transactional", [True, False])
def test_calling_twice_or_never_is_a_mistake_that_names_its_place(
    stored: Any, handle: Handle, around: Callable[..., Any], told: str, transactional: bool
) -> None:
    event_id = handle(one_handler(around, transactional=transactional), attempts=3)

    assert (stored.state(event_id), stored.effects(event_id)) == ("dead", 0)
    assert told in stored.error(event_id).message
    assert "test_around.py:" in stored.error(event_id).message


def test_a_forked_process_that_comes_back_does_not_run_through_what_is_around(
    stored: Any, handle: Handle, tmp_path: Any
) -> None:
    def around(attempt: Attempt, call: Call) -> Any:
        result = call()
        with (tmp_path / "ends").open("a") as notes:
            notes.write(f"{os.getpid()}\n")
        return result

    handlers = Handlers()
    handlers.around(around)

    @handlers.on("test.order", name="order", transactional=False)
    def fork(payload: Order, ctx: Context) -> int:
        pid = os.fork()
        return os.waitpid(pid, 0)[1] if pid else 0

    assert stored.state(handle(handlers)) == "processed"
    assert (tmp_path / "ends").read_text() == f"{os.getpid()}\n"


def generator(attempt: Attempt, call: Call) -> Any:
    yield call()


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (generator, "without 'yield'"), (lambda call: call(), "two arguments"),
        (lambda attempt, call, more: call(), "two arguments"), (lambda *, attempt, call: call(), "two arguments"),
        (functools.partial(twice), "is a function"), (Order, "is a function"),
    ],
)  # fmt: skip
def test_what_cannot_be_put_around_is_refused_where_it_stands(function: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        Handlers().around(function)
