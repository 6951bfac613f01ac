"""Relay: updates that nobody published."""

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import pytest

from holdfast.domain.errors import LiveWindowUnavailable
from holdfast.maintenance import relay as module
from holdfast.maintenance.relay import relay
from holdfast.messaging.announce import Announcer
from holdfast.messaging.live import Publisher
from holdfast.storage import outbox
from holdfast.storage.database import Database
from holdfast.storage.updates import find_updates

WINDOW_UPDATES = 1000
"""Of the publisher in ``conftest``."""


def work(database: Database, publisher: Publisher) -> int:
    return relay(database, publisher, within_seconds=10, limit=10)


def publish(database: Database, publisher: Publisher, keys: Sequence[tuple[UUID, int]]) -> None:
    """What the process that made the updates does after its commit."""
    publisher.publish(database.call(find_updates, keys))


def test_an_update_left_in_the_outbox_is_published_and_taken_off(
    database: Database, publisher: Publisher, events: Any, in_redis: Any
) -> None:
    [event_id] = events.record()
    events.age_updates()

    assert work(database, publisher) == 1

    assert [update["version"] for update in in_redis.published(event_id)] == [1]
    assert events.in_outbox(event_id) == []


def test_a_young_update_is_left_to_the_process_that_made_it(
    database: Database, publisher: Publisher, events: Any, in_redis: Any
) -> None:
    [event_id] = events.record()

    assert [work(database, publisher) for _ in range(3)] == [0, 0, 0]

    assert in_redis.published(event_id) == []
    assert events.in_outbox(event_id) == [1]


def test_what_its_process_published_leaves_the_outbox_without_being_published_again(
    database: Database, publisher: Publisher, events: Any, in_redis: Any
) -> None:
    told, missed = events.record(2)
    publish(database, publisher, [(told, 1)])
    events.age_updates()

    assert work(database, publisher) == 1

    assert [len(in_redis.published(each)) for each in (told, missed)] == [1, 1]
    assert [events.in_outbox(each) for each in (told, missed)] == [[], []]


def test_a_relay_that_dies_before_it_has_confirmed_tells_nobody_twice(
    database: Database, publisher: Publisher, events: Any, in_redis: Any
) -> None:
    event_ids = events.record(3)
    events.age_updates()
    page = database.call(outbox.next_page, after_seconds=5, limit=10)
    assert page is not None
    publish(database, publisher, page.keys[:2])

    assert work(database, publisher) == 1

    assert [len(in_redis.published(event_id)) for event_id in event_ids] == [1, 1, 1]


def test_an_emptied_redis_is_told_again_what_was_not_confirmed(
    database: Database, publisher: Publisher, events: Any, in_redis: Any
) -> None:
    confirmed = events.record(2)
    events.age_updates()
    work(database, publisher)
    open_ = events.record(2)
    publish(database, publisher, [(event_id, 1) for event_id in open_])
    in_redis.forget()
    events.age_updates()

    assert work(database, publisher) == 2

    assert [len(in_redis.published(event_id)) for event_id in (*confirmed, *open_)] == [0, 0, 1, 1]


def test_an_event_s_updates_are_published_in_order(
    database: Database, publisher: Publisher, events: Any, in_redis: Any
) -> None:
    [event_id] = events.record()
    events.claim(event_id)
    events.age_updates()

    work(database, publisher)

    assert [update["version"] for update in in_redis.published(event_id)] == [1, 2]


def test_while_redis_is_down_updates_stay_in_the_outbox(
    database: Database, make_publisher: Callable[[str], Publisher], closed_url: str, events: Any
) -> None:
    [event_id] = events.record()
    events.age_updates()

    with pytest.raises(LiveWindowUnavailable):
        work(database, make_publisher(closed_url))

    assert events.in_outbox(event_id) == [1]


def test_what_piled_up_while_redis_was_away_is_told_in_order_page_by_page(
    database: Database,
    publisher: Publisher,
    make_announcer: Callable[[str], Announcer],
    closed_url: str,
    events: Any,
    in_redis: Any,
) -> None:
    lonely = make_announcer(closed_url)
    batches: dict[UUID, int] = {}
    for number in range(6):
        batches |= dict.fromkeys(events.record(module.KEYS_TOGETHER // 4), number)
        assert not lonely.publish(database.call(find_updates, [(next(reversed(batches)), 1)]))
    events.age_updates()
    page = database.call(outbox.next_page, after_seconds=5, limit=module.KEYS_TOGETHER)
    assert page is not None

    assert work(database, publisher) == len(batches) == 3 * module.KEYS_TOGETHER // 2

    assert page.next is not None, "more than a page"
    told = [batches[event_id] for event_id in in_redis.told()]
    assert len(told) >= WINDOW_UPDATES
    assert told == sorted(told)
    assert database.call(outbox.next_page, after_seconds=0, limit=10) is None, "nothing is left"
