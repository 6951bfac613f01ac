"""Progress and transitions as they are told live, and Redis that does not listen."""

import json
import signal
import time
from collections.abc import Callable
from typing import Any

import redis

from holdfast.local.servers import Valkey
from holdfast.messaging.live import topic_keys
from holdfast.processor import Context, Handlers

MakeExecutor = Callable[..., Any]


def handling(function: Callable[..., Any], **options: Any) -> Handlers:
    handlers = Handlers()
    handlers.on("test.done", name="handler", **options)(function)
    return handlers


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
    assert stored.in_outbox(event_id) == [1, 2, 3]


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
