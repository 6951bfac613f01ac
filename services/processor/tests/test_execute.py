"""One event at a time through the executor, against real servers."""

import json
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
import redis
from pydantic import BaseModel
from sqlalchemy import text

from holdfast.domain.errors import ConfigurationError
from holdfast.domain.state import State
from holdfast.domain.update import Update
from holdfast.local.servers import Postgres, Valkey, free_port
from holdfast.messaging.live import Publisher, topic_keys
from holdfast.processor import Backoff, Context, Handlers, Reject, Retry
from holdfast.processor.execute import Executor
from holdfast.processor.results import MAX_RESULT_BYTES
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Metrics
from holdfast.storage.database import Database
from holdfast.storage.migrate import upgrade

MakeExecutor = Callable[..., Executor]


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
    assert stored.scalar("SELECT round(extract(epoch FROM available_at - now())) FROM processing_state") == 5
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
    assert stored.scalar("SELECT round(extract(epoch FROM available_at - now())) FROM processing_state") == 120


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


def test_a_worker_whose_event_was_given_away_leaves_nothing(stored: Any, executor: MakeExecutor) -> None:
    event_id = stored.record("test.done")
    made = executor(handling(just_leave_effect))
    lease = made._claim(event_id, 1)
    assert lease is not None
    stored.take_away(event_id)

    made._attempt(lease, logging.get("test"))

    assert stored.state(event_id) == "processing"
    assert stored.row(event_id).lease_owner == "other"
    assert stored.scalar("SELECT count(*) FROM effect") == 0


def test_an_event_in_the_log_is_only_put_right(stored: Any, executor: MakeExecutor) -> None:
    event_id = stored.record("test.done")
    stored.run(f"INSERT INTO processed_event_log VALUES ('{event_id}', 'h', 1, gen_random_uuid(), '1', 0, now())")  # noqa: S608

    executor(handling(just_leave_effect)).execute(event_id, 1)

    assert stored.state(event_id) == "processed"
    assert stored.scalar("SELECT count(*) FROM effect") == 0
    assert stored.scalar("SELECT handler FROM processed_event_log") == "h"


def test_progress_and_transitions_are_published_in_order(stored: Any, executor: MakeExecutor, redis_url: str) -> None:
    def slow(data: Any, ctx: Context) -> str:  # noqa: ARG001
        ctx.progress(0.25, "a quarter")
        ctx.progress(0.26, "too soon after")
        ctx.progress(7, "more than all")
        return "ok"

    event_id = stored.record("test.done", audience="user-1")

    executor(handling(slow)).execute(event_id, 1)

    with redis.Redis.from_url(redis_url) as live:
        entries = live.xrange(topic_keys("acme", "audience:user-1").stream)
    told = [json.loads(fields[b"u"]) for _, fields in entries]
    assert [(each["state"], each["version"], each["step"]) for each in told] == [
        ("processing", 2, 0), ("processing", 2, 1), ("processing", 2, 2), ("processed", 3, 0),
    ]  # fmt: skip
    assert [each["detail"].get("progress") for each in told][1:3] == [
        {"fraction": 0.25, "message": "a quarter"}, {"fraction": 1.0, "message": "more than all"},
    ]  # fmt: skip


def test_redis_away_changes_nothing_but_the_news(stored: Any, executor: MakeExecutor) -> None:
    def tell(data: Any, ctx: Context) -> None:  # noqa: ARG001
        ctx.progress(0.5)

    event_id = stored.record("test.done")

    executor(handling(tell), redis_url="redis://127.0.0.1:1").execute(event_id, 1)

    assert stored.state(event_id) == "processed"
    assert stored.scalar("SELECT count(*) FROM event_update WHERE published_at IS NULL") == 3


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


def test_a_burst_of_progress_is_thinned_out_and_its_end_told_once(
    stored: Any, live: Any, executor: MakeExecutor
) -> None:
    def hurry(data: Any, ctx: Context) -> None:  # noqa: ARG001
        for number in range(1000):
            ctx.progress(number / 1000)
        for _ in range(10):
            ctx.progress(1.0, "done")

    event_id = stored.record("test.done")

    executor(handling(hurry)).execute(event_id, 1)

    progress = [each for each in live.published(event_id) if each["step"]]
    assert [each["step"] for each in progress] == list(range(1, len(progress) + 1))
    assert len(progress) < 50
    assert [each["detail"]["progress"]["fraction"] for each in progress].count(1.0) == 1


def test_progress_that_is_no_number_or_no_text_is_told_as_json_and_fails_nothing(
    stored: Any, live: Any, executor: MakeExecutor
) -> None:
    def odd(data: Any, ctx: Context) -> None:  # noqa: ARG001
        ctx.progress(float("nan"), "half a pair \ud800" + "x" * 1000)

    event_id = stored.record("test.done")

    executor(handling(odd)).execute(event_id, 1)

    assert stored.state(event_id) == "processed"
    [told] = [each["detail"]["progress"] for each in live.published(event_id) if each["step"]]
    assert (told["fraction"], len(told["message"])) == (0.0, 200)


def test_redis_that_hangs_delays_a_reporting_handler_by_one_timeout_and_not_by_each(
    stored: Any, executor: MakeExecutor, own_valkey: Valkey
) -> None:
    def chatter(data: Any, ctx: Context) -> float:  # noqa: ARG001
        own_valkey.send(signal.SIGSTOP)
        began = time.monotonic()
        for number in range(20):
            ctx.progress(number / 20)
        return time.monotonic() - began

    event_id = stored.record("test.done")

    executor(handling(chatter), redis_url=own_valkey.url()).execute(event_id, 1)

    own_valkey.send(signal.SIGCONT)
    assert stored.state(event_id) == "processed"
    assert stored.log(event_id)[0].result < 1.9  # the timeout is a second


def test_postgres_down_at_the_claim_judges_nothing(stored: Any, executor: MakeExecutor) -> None:
    event_id = stored.record("test.done")
    down = executor(handling(just_leave_effect), database_url=f"postgresql://user@127.0.0.1:{free_port()}/x")

    down.execute(event_id, 1)

    assert (stored.state(event_id), stored.row(event_id).version, stored.row(event_id).attempt) == ("queued", 1, 0)


def test_postgres_down_at_the_settling_leaves_the_lease_and_no_effect(
    own_postgres: Postgres, executor: MakeExecutor, make_stored: Callable[[Database], Any]
) -> None:
    upgrade(own_postgres.url())
    database = Database(own_postgres.url(), application_name="test")
    stored = make_stored(database)
    event_id = stored.record("test.done")

    def work(data: Any, ctx: Context) -> None:
        just_leave_effect(data, ctx)
        own_postgres.crash()

    executor(handling(work), database_url=own_postgres.url()).execute(event_id, 1)

    own_postgres.start()
    database.close()  # its connections lead to the server of before
    row = stored.row(event_id)
    # A claim is not durable: the crash may have taken it back. Either way nobody judged the attempt.
    assert (row.state, row.attempt) in (("processing", 1), ("queued", 0))
    assert (stored.effects(event_id), stored.errors(event_id)) == (0, [])
    database.close()


class Recovering(Publisher):
    """Publishes, and lets maintenance recover the event right after its claim: the worker was away for too long."""

    def __init__(self, client: "redis.Redis", stored: Any) -> None:
        super().__init__(client, window_seconds=60, window_updates=1000)
        self._stored = stored

    def publish(self, updates: Sequence[Update]) -> None:
        super().publish(updates)
        if updates[0].state is State.PROCESSING:
            self._stored.recover()


def test_a_worker_that_lost_its_lease_before_it_began_runs_nothing(
    stored: Any, executor: MakeExecutor, redis_url: str
) -> None:
    event_id = stored.record("test.done")
    lost = Metrics.lost_leases._value.get()
    with redis.Redis.from_url(redis_url) as client:
        executor(handling(just_leave_effect), publisher=Recovering(client, stored)).execute(event_id, 1)

    assert (stored.state(event_id), stored.row(event_id).version, stored.effects(event_id)) == ("queued", 3, 0)
    assert Metrics.lost_leases._value.get() == lost + 1


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
