"""Redispatch: doorbells for events that are due."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from holdfast.domain.errors import BrokerUnavailable
from holdfast.local.servers import Valkey
from holdfast.maintenance.redispatch import redispatch
from holdfast.messaging.bell import Bell
from holdfast.messaging.brokers import open_bell
from holdfast.storage.database import Database


@pytest.fixture
def deaf_bell(valkey: Valkey, redis_url: str) -> Iterator[Bell]:
    """A Redis that answers a ping and takes no message, as one that is out of memory."""
    with redis.Redis.from_url(redis_url) as admin:
        admin.execute_command("ACL", "SETUSER", "deaf", "on", ">word", "~*", "+ping", "+select", "+client")
        bell = open_bell(f"redis://deaf:word@127.0.0.1:{valkey.port}/0", timeout_seconds=1, is_consumer=False)
        yield bell
        bell.close()
        admin.execute_command("ACL", "DELUSER", "deaf")


def test_a_due_event_is_rung_for_at_its_version(database: Database, bell: Bell, events: Any, in_redis: Any) -> None:
    [event_id] = events.record()

    assert redispatch(database, bell, limit=10) == 1

    assert in_redis.doorbells() == [(event_id, 1)]
    assert events.row(event_id).version == 1, "copies of the doorbell that are still queued stay valid"


def test_an_event_within_its_grace_is_left_to_its_first_doorbell(
    database: Database, bell: Bell, events: Any, in_redis: Any
) -> None:
    events.record(due_seconds=5)

    assert redispatch(database, bell, limit=10) == 0

    assert in_redis.doorbells() == []


def test_an_event_that_a_worker_has_is_left_alone(database: Database, bell: Bell, events: Any, in_redis: Any) -> None:
    [event_id] = events.record()
    events.claim(event_id)

    assert redispatch(database, bell, limit=10) == 0

    assert in_redis.doorbells() == []


@pytest.mark.parametrize(("dispatches", "seconds"), [(0, 30), (1, 60), (5, 960), (6, 1800), (40, 1800)])
def test_an_event_is_rung_for_ever_more_rarely_up_to_half_an_hour(
    database: Database, bell: Bell, events: Any, dispatches: int, seconds: int
) -> None:
    [event_id] = events.record()
    events.execute(f"UPDATE processing_state SET dispatches = {dispatches} WHERE event_id = :id", event_id)  # noqa: S608

    redispatch(database, bell, limit=10)

    row = events.row(event_id)
    assert row.dispatches == dispatches + 1
    assert row.dispatch_in == pytest.approx(seconds, abs=5)


def test_while_redis_is_down_no_event_is_put_off(database: Database, closed_url: str, events: Any) -> None:
    [event_id] = events.record()
    down = open_bell(closed_url, timeout_seconds=1, is_consumer=False)

    with pytest.raises(BrokerUnavailable):
        redispatch(database, down, limit=10)

    row = events.row(event_id)
    assert row.dispatches == 0
    assert row.dispatch_in <= 0


def test_a_bell_that_redis_did_not_take_does_not_count(database: Database, deaf_bell: Bell, events: Any) -> None:
    [event_id] = events.record()
    events.execute("UPDATE processing_state SET dispatches = 6 WHERE event_id = :id", event_id)

    with pytest.raises(BrokerUnavailable):
        redispatch(database, deaf_bell, limit=10)

    row = events.row(event_id)
    assert row.dispatches == 6
    assert row.dispatch_in <= 0, "not half an hour later: it is rung for as soon as Redis takes messages again"


def test_no_more_events_than_asked_for_and_the_longest_waiting_first(
    database: Database, bell: Bell, events: Any, in_redis: Any
) -> None:
    [_, _, oldest] = events.record(3)
    events.execute("UPDATE processing_state SET next_dispatch_at = now() - interval '1 h' WHERE event_id = :id", oldest)

    assert redispatch(database, bell, limit=1) == 1

    assert in_redis.doorbells() == [(oldest, 1)]
