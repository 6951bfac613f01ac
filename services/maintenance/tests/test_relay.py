"""Relay: updates that nobody published."""

from collections.abc import Callable
from typing import Any

import pytest

from holdfast.domain.errors import LiveWindowUnavailable
from holdfast.maintenance.relay import relay
from holdfast.messaging.live import Publisher
from holdfast.storage.database import Database


def test_an_update_left_in_the_outbox_is_published_and_taken_off(
    database: Database, publisher: Publisher, events: Any, in_redis: Any
) -> None:
    [event_id] = events.record()
    events.age_updates(event_id)

    assert relay(database, publisher, older_than_seconds=5, limit=10) == 1

    assert [update["version"] for update in in_redis.published(event_id)] == [1]
    assert events.unpublished(event_id) == []


def test_a_young_update_is_left_to_the_process_that_made_it(
    database: Database, publisher: Publisher, events: Any, in_redis: Any
) -> None:
    [event_id] = events.record()

    assert relay(database, publisher, older_than_seconds=5, limit=10) == 0

    assert in_redis.published(event_id) == []


def test_an_update_that_was_published_and_not_marked_is_not_seen_twice(
    database: Database, publisher: Publisher, events: Any, in_redis: Any
) -> None:
    [event_id] = events.record()
    events.age_updates(event_id)
    relay(database, publisher, older_than_seconds=5, limit=10)
    events.execute("UPDATE event_update SET published_at = NULL WHERE event_id = :id", event_id)

    assert relay(database, publisher, older_than_seconds=5, limit=10) == 1

    assert len(in_redis.published(event_id)) == 1


def test_an_event_s_updates_are_published_in_order(
    database: Database, publisher: Publisher, events: Any, in_redis: Any
) -> None:
    [event_id] = events.record()
    events.claim(event_id)
    events.age_updates(event_id)

    relay(database, publisher, older_than_seconds=5, limit=10)

    assert [update["version"] for update in in_redis.published(event_id)] == [1, 2]


def test_while_redis_is_down_updates_stay_in_the_outbox(
    database: Database, make_publisher: Callable[[str], Publisher], closed_url: str, events: Any
) -> None:
    [event_id] = events.record()
    events.age_updates(event_id)

    with pytest.raises(LiveWindowUnavailable):
        relay(database, make_publisher(closed_url), older_than_seconds=5, limit=10)

    assert events.unpublished(event_id) == [1]
