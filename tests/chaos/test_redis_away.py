"""Redis stopped or emptied: events are late, and none is lost."""

from collections.abc import Callable

import pytest
from tests.chaos.distant import wake
from tests.chaos.producers import Producers, event
from tests.chaos.stacks import Rows, fill, held_lock, ring

from holdfast.local.fixtures import Eventually
from holdfast.local.stack import Stack

pytestmark = pytest.mark.xdist_group("chaos")

LOCK = 10

RETRY_SECONDS = 2

LATE_SECONDS = 5
"""A processor without Redis looks for due events about once a second; the rest is for a busy machine."""


def test_r02_a_thousand_events_are_accepted_and_processed_while_redis_is_down(
    stack: Stack,
    producers: Producers,
    rows: Rows,
    eventually: Eventually,
    assert_invariant: Callable[[], None],
) -> None:
    stack.redis.stop()
    try:
        answers = producers.post_all([event("chaos.plain") for _ in range(1000)])
        ids = [answer.event_id for answer in answers if answer.status == 202]
        eventually(lambda: rows.count("processed", ids) == 1000, timeout_seconds=60, message="processed without Redis")
        was_down = not stack.redis.process.is_running
    finally:
        stack.redis.start()

    assert was_down
    assert {(answer.status, answer.body.get("enqueued")) for answer in answers} == {(202, False)}
    assert sorted(answer.seconds for answer in answers)[989] < 5
    assert rows.effects(ids) == 1000
    assert_invariant()


@pytest.mark.usefixtures("paused_processor")
@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.soak)])
def test_r03_redis_flushed_with_everything_queued_loses_nothing(
    stack: Stack,
    rows: Rows,
    eventually: Eventually,
    assert_invariant: Callable[[], None],
    count: int,
) -> None:
    ids = fill(stack.database_url, count, "chaos.plain", grace_seconds=5)
    ring(stack, ids)
    queued = stack.redis.execute("ZCARD", "dramatiq:events.turns")

    stack.redis.execute("FLUSHALL")
    wake(stack.services["processor"])

    assert queued >= count
    eventually(
        lambda: rows.count("processed", ids) == count, timeout_seconds=60 + count / 50, message="all are processed"
    )
    assert rows.effects(ids) == count
    assert_invariant()


def test_r10_redis_stopped_while_a_handler_fails_does_not_hold_its_retry_up(
    stack: Stack,
    producers: Producers,
    rows: Rows,
    eventually: Eventually,
    assert_invariant: Callable[[], None],
) -> None:
    with held_lock(stack, LOCK):
        sent = event("chaos.failing-once", {"lock": LOCK, "after": RETRY_SECONDS})
        event_id = producers.post(sent).event_id
        eventually(lambda: rows.waiting(LOCK) == 1, message="the handler is about to fail")
        stack.redis.stop()
    try:
        eventually(lambda: rows.state(event_id) == "processed", message="the next attempt succeeds, without Redis")
    finally:
        stack.redis.start()

    states, moments = zip(*rows.history(event_id), strict=True)
    assert states == ("queued", "processing", "failed", "processing", "processed")
    assert RETRY_SECONDS <= moments[3] - moments[2] < RETRY_SECONDS + LATE_SECONDS
    assert rows.effects([event_id]) == 1
    assert_invariant()
