"""One event at a time through the executor, against real servers."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel
from sqlalchemy import text

from holdfast.domain.errors import ConfigurationError
from holdfast.processor import Backoff, Context, Handlers, Reject, Retry, Snooze
from holdfast.processor.attempt.results import MAX_RESULT_BYTES

MakeExecutor = Callable[..., Any]


class Order(BaseModel):
    order_id: str
    amount_cents: int


def handling(function: Callable[..., Any], **options: Any) -> Handlers:
    handlers = Handlers()
    handlers.on("test.done", name="handler", **options)(function)
    return handlers


def leave_effect(ctx: Context) -> None:
    ctx.session.execute(text("INSERT INTO effect VALUES (:id, '')"), {"id": ctx.event.id})


def just_leave_effect(data: Any, ctx: Context) -> None:  # noqa: ARG001
    leave_effect(ctx)


def test_effects_log_and_state_commit_together(stored: Any, executor: MakeExecutor) -> None:
    def book(order: Order, ctx: Context) -> dict[str, int]:
        leave_effect(ctx)
        return {"booked": order.amount_cents}

    event_id = stored.record("test.done", {"order_id": "1", "amount_cents": 42})

    executor(handling(book)).execute(event_id, 1)

    row = stored.row(event_id)
    assert (row.state, row.version, row.attempt, row.lease_token) == ("processed", 3, 1, None)
    assert stored.scalar("SELECT count(*) FROM effect") == 1
    assert stored.scalar("SELECT result FROM processed_event_log") == {"booked": 42}


def test_a_doorbell_many_times_has_one_effect(stored: Any, executor: MakeExecutor) -> None:
    event_id = stored.record("test.done")
    made = executor(handling(just_leave_effect))

    for _ in range(10):
        made.execute(event_id, 1)

    assert stored.scalar("SELECT count(*) FROM effect") == 1


def test_a_failed_attempt_leaves_no_effect_and_waits(stored: Any, executor: MakeExecutor) -> None:
    def fail(data: Any, ctx: Context) -> None:  # noqa: ARG001
        leave_effect(ctx)
        raise ValueError("not today")

    event_id = stored.record("test.done")

    executor(handling(fail, retry=Backoff(first=10, factor=2, cap=100, attempts=3))).execute(event_id, 1)

    row, error = stored.row(event_id), stored.error(event_id)
    assert (row.state, row.attempt) == ("failed", 1)
    waits = "SELECT extract(epoch FROM available_at - (SELECT max(at) FROM event_update)) FROM processing_state"
    assert stored.scalar(waits) == 5
    assert stored.scalar("SELECT count(*) FROM effect") == 0
    assert (error.error_type, error.message, error.handler, error.worker) == (
        "ValueError",
        "not today",
        "handler",
        "test",
    )
    assert "test_execute.py" in error.traceback


def test_attempts_are_counted_until_the_event_is_dead(stored: Any, executor: MakeExecutor) -> None:
    def fail(data: Any, ctx: Context) -> None:  # noqa: ARG001
        raise ValueError("never")

    event_id = stored.record("test.done")
    made = executor(handling(fail, retry=Backoff(first=1, factor=1, cap=1, attempts=3)))

    states = []
    for _ in range(3):
        stored.make_due()
        made.execute(event_id, stored.row(event_id).version)
        states.append(stored.state(event_id))

    assert states == ["failed", "failed", "dead"]
    assert stored.scalar("SELECT count(DISTINCT fingerprint) FROM attempt_error") == 1
    assert stored.scalar("SELECT array_agg(attempt ORDER BY id) FROM attempt_error") == [1, 2, 3]


def test_retry_chooses_the_wait(stored: Any, executor: MakeExecutor) -> None:
    def later(data: Any, ctx: Context) -> None:  # noqa: ARG001
        raise Retry("come back", after=120)

    event_id = stored.record("test.done")

    executor(handling(later)).execute(event_id, 1)

    assert stored.state(event_id) == "failed"
    waits = "SELECT extract(epoch FROM available_at - (SELECT max(at) FROM event_update)) FROM processing_state"
    assert stored.scalar(waits) == 120


def test_an_event_that_is_put_off_spends_no_attempt_and_leaves_nothing(stored: Any, executor: MakeExecutor) -> None:
    def not_now(data: Any, ctx: Context) -> None:  # noqa: ARG001
        leave_effect(ctx)
        raise Snooze(120)

    event_id = stored.record("test.done")

    executor(handling(not_now, retry=Backoff(attempts=1), final=(Exception,))).execute(event_id, 1)

    row = stored.row(event_id)
    assert (row.state, row.attempt, row.version, row.last_error) == ("queued", 0, 3, None)
    assert 110 < row.due_in <= 120
    assert (stored.errors(event_id), stored.effects(event_id)) == ([], 0)


@pytest.mark.parametrize("after", [-1, float("nan"), None, "60", True])
def test_an_event_is_put_off_for_a_number_of_seconds(after: Any) -> None:
    with pytest.raises(ValueError, match="Snooze"):
        Snooze(after)


def test_an_event_is_put_off_for_a_year_at_most() -> None:
    assert Snooze(float("inf")).after == Snooze(10**9).after == 365 * 24 * 3600


@pytest.mark.parametrize(
    ("raised", "options", "error_type"),
    [
        (Reject("no", code="bad_amount"), {}, "bad_amount"),
        (Reject("no"), {}, "rejected"),
        (KeyError("x"), {"final": (KeyError,)}, "KeyError"),
        (Retry("again", after=1), {"retry": Backoff(attempts=1)}, "Retry"),
    ],
)
def test_what_will_never_succeed_is_dead_at_once(
    stored: Any, executor: MakeExecutor, raised: Exception, options: dict[str, Any], error_type: str
) -> None:
    def refuse(data: Any, ctx: Context) -> None:  # noqa: ARG001
        raise raised

    event_id = stored.record("test.done")

    executor(handling(refuse, **options)).execute(event_id, 1)

    assert (stored.state(event_id), stored.error(event_id).error_type) == ("dead", error_type)


def test_a_type_without_handler_is_dead(stored: Any, executor: MakeExecutor) -> None:
    event_id = stored.record("test.unheard-of")

    executor(Handlers()).execute(event_id, 1)

    assert (stored.state(event_id), stored.error(event_id).error_type) == ("dead", "no_handler")


def test_data_that_does_not_fit_is_dead_with_the_place_and_without_the_value(
    stored: Any, executor: MakeExecutor
) -> None:
    def book(order: Order, ctx: Context) -> None:
        """Never called."""

    event_id = stored.record("test.done", {"order_id": "1", "amount_cents": "s3cret"})

    executor(handling(book)).execute(event_id, 1)

    error = stored.error(event_id)
    assert (stored.state(event_id), error.error_type) == ("dead", "invalid_data")
    assert "amount_cents" in error.message
    assert "s3cret" not in error.message


def test_a_model_that_the_handler_itself_fails_to_fill_is_an_ordinary_failure(
    stored: Any, executor: MakeExecutor
) -> None:
    def book(data: Any, ctx: Context) -> None:  # noqa: ARG001
        Order.model_validate({})

    event_id = stored.record("test.done")

    executor(handling(book)).execute(event_id, 1)

    assert (stored.state(event_id), stored.error(event_id).error_type) == ("failed", "ValidationError")


@pytest.mark.parametrize("result", [object(), {1, 2}, float("nan"), "\x00", "x" * (MAX_RESULT_BYTES + 1), {("a",): 1}])
def test_a_result_that_cannot_be_stored_is_dead_and_leaves_no_effect(
    stored: Any, executor: MakeExecutor, result: Any
) -> None:
    def answer(data: Any, ctx: Context) -> Any:  # noqa: ARG001
        leave_effect(ctx)
        return result

    event_id = stored.record("test.done")

    executor(handling(answer)).execute(event_id, 1)

    assert (stored.state(event_id), stored.error(event_id).error_type) == ("dead", "invalid_result")
    assert stored.scalar("SELECT count(*) FROM effect") == 0


def test_messages_that_postgres_cannot_store_do_not_hide_the_failure(stored: Any, executor: MakeExecutor) -> None:
    def fail(data: Any, ctx: Context) -> None:  # noqa: ARG001
        raise ValueError("\x00 \ud800 " + "x" * 10_000)

    event_id = stored.record("test.done")

    executor(handling(fail)).execute(event_id, 1)

    assert stored.state(event_id) == "failed"
    assert len(stored.error(event_id).message) <= 500


def test_the_idempotency_key_is_the_same_in_every_attempt(stored: Any, executor: MakeExecutor) -> None:
    seen: list[tuple[int, str]] = []

    def fail(data: Any, ctx: Context) -> None:  # noqa: ARG001
        seen.append((ctx.attempt, ctx.idempotency_key))
        raise ValueError

    event_id: UUID = stored.record("test.done")
    made = executor(handling(fail))
    for _ in range(2):
        stored.make_due()
        made.execute(event_id, stored.row(event_id).version)

    assert seen == [(1, f"{event_id}:handler"), (2, f"{event_id}:handler")]


def test_a_backoff_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        Backoff(attempts=0)


def test_bytes_reach_the_handler_as_they_were_sent(stored: Any, executor: MakeExecutor) -> None:
    def measure(data: bytes, ctx: Context) -> int:
        assert isinstance(ctx.event.data, bytes)
        return len(data)

    event_id = stored.record("test.done", b"\x00\xff")

    executor(handling(measure)).execute(event_id, 1)

    assert stored.log(event_id)[0].result == 2


@pytest.mark.parametrize("result", [None, False, "\\u0000", {"a": [1, 2.5, "ü"]}, {1: "a"}])
def test_results_are_stored_and_told_as_json(stored: Any, live: Any, executor: MakeExecutor, result: Any) -> None:
    def answer(data: Any, ctx: Context) -> Any:  # noqa: ARG001
        return result

    event_id = stored.record("test.done")

    executor(handling(answer)).execute(event_id, 1)

    wanted = json.loads(json.dumps(result))
    assert stored.log(event_id)[0].result == wanted
    assert live.published(event_id)[-1]["detail"]["result"] == wanted


def test_a_doorbell_for_an_event_that_is_not_due_is_stale(stored: Any, executor: MakeExecutor) -> None:
    event_id = stored.record("test.done")
    stored.run("UPDATE processing_state SET available_at = now() + interval '1 h'")

    executor(handling(just_leave_effect)).execute(event_id, 1)

    assert (stored.state(event_id), stored.effects(event_id)) == ("queued", 0)


def test_one_doorbell_in_many_threads_has_one_effect(stored: Any, executor: MakeExecutor) -> None:
    event_id = stored.record("test.done")
    made = executor(handling(just_leave_effect))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: made.execute(event_id, 1), range(64)))

    assert (stored.state(event_id), stored.effects(event_id), stored.row(event_id).attempt) == ("processed", 1, 1)
