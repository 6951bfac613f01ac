"""A long backlog, and sweeps that everybody asks for twice."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import pytest
from dramatiq import Message
from tests.chaos.load import send
from tests.chaos.producers import Producers
from tests.chaos.stacks import Replica, Rows
from tests.chaos.standing import settle, standing

from holdfast.local.fixtures import Eventually
from holdfast.local.process import Guarded
from holdfast.local.services import SERVICES, environment
from holdfast.local.stack import Stack
from holdfast.messaging.broker import redis_broker
from holdfast.storage.claims import claim_events
from holdfast.storage.database import Database

pytestmark = pytest.mark.xdist_group("chaos-workers")

MINUTES = 30
STEP_MINUTES = 2
EVENTS_A_STEP = 10

THREADS = 8
"""A processor's default: so many events are claimed at once, in any order."""

DUE = """
SELECT event_id FROM processing_state
WHERE state IN ('queued', 'failed') AND next_dispatch_at <= now() AND event_id = ANY (%s::uuid[])
"""

PASS_TIME = """
UPDATE processing_state
SET available_at = available_at - make_interval(mins => %s), next_dispatch_at = next_dispatch_at - make_interval(mins => %s)
WHERE event_id = ANY (%s::uuid[]) RETURNING event_id
"""

CLAIMED = """
SELECT event_id::text FROM event_update WHERE state = 'processing' AND event_id = ANY (%s::uuid[]) ORDER BY at
"""


@pytest.mark.usefixtures("no_processor")
def test_r16_half_an_hour_of_backlog_rings_a_bounded_number_of_bells_and_the_oldest_is_first(
    stack: Stack, rows: Rows, producers: Producers, launch: Callable[..., Replica],
    assert_invariant: Callable[[], None], eventually: Eventually,
) -> None:  # fmt: skip
    launch("maintenance", SWEEP_SECONDS="0.2")
    event_ids = backlog(rows, producers, eventually)
    bells = int(stack.redis.execute("HLEN", "dramatiq:events.msgs"))

    stack.resume("processor")

    assert 2 * len(event_ids) < bells <= 8 * len(event_ids)
    assert {row.state for row in settle(rows, event_ids, eventually)} == {"processed"}
    claimed = [event_id for (event_id,) in rows.query(CLAIMED, event_ids)]
    moved = [abs(place - event_ids.index(event_id)) for place, event_id in enumerate(claimed)]
    assert max(moved) <= 3 * THREADS, "about in the order of arrival"
    assert_invariant()


def backlog(rows: Rows, producers: Producers, eventually: Eventually) -> list[str]:
    """Let half an hour pass in which events arrive and are swept and nobody processes them; their ids, oldest first.

    Instead of the clock moving on, every time that is written down moves back, and the sweeps catch up.
    """
    event_ids: list[str] = []
    for _ in range(0, MINUTES, STEP_MINUTES):
        event_ids += send(producers, "chaos.plain", EVENTS_A_STEP)
        rows.query(PASS_TIME, STEP_MINUTES, STEP_MINUTES, event_ids)
        eventually(partial(are_rung, rows, event_ids), message="the sweeps have rung for what was due")
    return event_ids


def are_rung(rows: Rows, event_ids: list[str]) -> bool:
    return not rows.query(DUE, event_ids)


@pytest.mark.usefixtures("no_processor")
def test_r17_two_schedulers_and_every_tick_twice_move_each_event_once(
    stack: Stack, rows: Rows, producers: Producers, assert_invariant: Callable[[], None], eventually: Eventually
) -> None:
    event_ids = send(producers, "chaos.plain", 60)
    lost = event_ids[::2]
    lose(stack, lost)
    scheduler = second_scheduler(stack)
    try:
        tick_twice(stack)
        eventually(lambda: {row.crashes for row in standing(rows, lost)} == {1}, message="lost events are recovered")
        tick_twice(stack)
        stack.resume("processor")
        settled = settle(rows, event_ids, eventually)
        assert scheduler.is_running
    finally:
        scheduler.stop()

    by_loss = {is_lost: [row for row in settled if (row.event_id in lost) is is_lost] for is_lost in (True, False)}
    assert {(row.state, row.version, row.attempt, row.crashes) for row in by_loss[True]} == {("processed", 5, 2, 1)}
    assert {(row.state, row.version, row.attempt, row.crashes) for row in by_loss[False]} == {("processed", 3, 1, 0)}
    assert_invariant()


def lose(stack: Stack, event_ids: list[str]) -> None:
    """Claim events as a worker that is gone, under leases that are over."""
    database = Database(stack.database_url, application_name="test", pool_size=1)
    try:
        with database.transaction() as session:
            claimed = claim_events(session, [(UUID(each), 1) for each in event_ids], owner="lost", lease_seconds=0)
    finally:
        database.close()
    assert len(claimed) == len(event_ids)


def second_scheduler(stack: Stack) -> Guarded:
    """One more scheduler, which sends its first tick at once, or with the next minute."""
    service = next(service for service in SERVICES if service.name == "scheduler")
    scheduler = Guarded("scheduler", log=stack.logs / "second-scheduler.log")
    scheduler.start(service.command, environment(stack._settings_of(service)))
    return scheduler


def tick_twice(stack: Stack) -> None:
    """The ticks of this minute from two schedulers, each of them delivered twice."""
    now = datetime.now(UTC).isoformat()
    broker = redis_broker(stack.redis.url(0), timeout_seconds=10, is_consumer=False)
    try:
        broker.enqueue_many(
            Message(queue_name="maintenance", actor_name=duty, args=(), kwargs={}, options={"scheduled_at": now})
            for duty in ("recover", "redispatch", "relay") * 4
        )
    finally:
        broker.client.close()
