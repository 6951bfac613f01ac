"""The live window: offsets, once, epochs, and what the read script answers."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from holdfast.domain.errors import LiveWindowUnavailable
from holdfast.domain.state import State
from holdfast.domain.update import Update
from holdfast.local.servers import Valkey
from holdfast.messaging.connect import redis_client
from holdfast.messaging.live import (
    MAX_UPDATE_BYTES,
    READ_SCRIPT,
    Publisher,
    TopicReading,
    parse_message,
    parse_reading,
    topic_keys,
)

WINDOW_SECONDS = 600
TOPIC = "audience:user-1"


class Live:
    """One Redis as the gateway sees it, and a publisher on it."""

    def __init__(self, url: str) -> None:
        self.client = redis_client(url, timeout_seconds=5)
        self.publisher = Publisher(self.client, window_seconds=WINDOW_SECONDS, window_updates=100)

    def publish(self, count: int = 1, **fields: Any) -> list[Update]:
        updates = [update(**fields) for _ in range(count)]
        self.publisher.publish(updates)
        return updates

    def read(
        self, since: int | str = "", *, topic: str = TOPIC, tenant: str = "acme", limit: int = 500
    ) -> TopicReading:
        keys = topic_keys(tenant, topic)
        return parse_reading(self.client.eval(READ_SCRIPT, 2, keys.meta, keys.stream, since, limit, WINDOW_SECONDS, 60))

    def offsets(self, since: int) -> list[int]:
        return [offset for offset, _ in self.read(since).entries]


def update(**fields: Any) -> Update:
    values: dict[str, Any] = {
        "event_id": uuid4(), "tenant": "acme", "type": "x", "audience": "user-1", "state": State.QUEUED, "version": 1,
        "attempt": 0, "at": datetime.now(UTC),
    }  # fmt: skip
    return Update(**(values | fields))


@pytest.fixture
def connect() -> Iterator[Callable[[str], Live]]:
    made: list[Live] = []

    def one(url: str) -> Live:
        made.append(Live(url))
        return made[-1]

    yield one
    for live in made:
        live.client.close()


@pytest.fixture
def live(connect: Callable[[str], Live], redis_url: str) -> Live:
    return connect(redis_url)


def test_an_update_reaches_each_of_its_topics_with_its_first_offset(live: Live) -> None:
    [told] = live.publish()

    for topic in (f"event:{told.event_id}", "audience:user-1", "tenant:acme"):
        reading = live.read(0, topic=topic)
        assert (reading.top, reading.first) == (1, 1)
        [(offset, body)] = reading.entries
        assert (offset, json.loads(body)["id"]) == (1, str(told.event_id))


def test_an_update_without_audience_goes_to_event_and_tenant_alone(live: Live) -> None:
    live.publish(audience=None)

    assert not list(live.client.scan_iter("live:*:audience:*"))
    assert live.read(0, topic="tenant:acme").top == 1


def test_equal_topics_of_two_tenants_do_not_meet(live: Live) -> None:
    live.publish(tenant="other")

    assert live.read(0).entries == []
    assert live.read(0, tenant="other").top == 1


def test_what_is_on_the_channel_is_what_is_in_the_stream(live: Live) -> None:
    with live.client.pubsub(ignore_subscribe_messages=True) as listener:  # type: ignore[no-untyped-call]
        listener.subscribe(topic_keys("acme", TOPIC).channel)
        listener.get_message(timeout=5)

        live.publish(3)

        messages = [listener.get_message(timeout=5) for _ in range(3)]
    heard = [parse_message(message["data"]) for message in messages if message]
    reading = live.read(0)
    assert [(offset, body) for _, offset, body in heard] == reading.entries
    assert {epoch for epoch, _, _ in heard} == {reading.epoch}


def test_offsets_are_contiguous_over_concurrent_publishers(
    live: Live, connect: Callable[[str], Live], redis_url: str
) -> None:
    publishers = [connect(redis_url) for _ in range(6)]
    barrier = threading.Barrier(len(publishers))

    def publish(publisher: Live) -> None:
        barrier.wait(10)
        for _ in range(5):
            publisher.publish(3)

    with ThreadPoolExecutor(len(publishers)) as pool:
        list(pool.map(publish, publishers))

    assert live.offsets(since=0) == list(range(1, 91))


def test_a_long_list_keeps_its_order_and_leaves_out_what_was_published_before(live: Live) -> None:
    updates = [update() for _ in range(95)]
    live.publisher.publish(updates[7:9])

    live.publisher.publish(updates)

    ids = [json.loads(body)["id"] for _, body in live.read(0, topic="tenant:acme").entries]
    expected = [*updates[7:9], *updates[:7], *updates[9:]]
    assert ids == [str(each.event_id) for each in expected]
    assert live.read(topic="tenant:acme").top == len(updates)


def test_an_update_published_again_is_invisible(live: Live) -> None:
    told = live.publish(2)

    live.publisher.publish([*told, *told])

    assert live.offsets(since=0) == [1, 2]


def test_the_next_version_and_the_next_step_are_other_updates(live: Live) -> None:
    event_id = uuid4()

    for version, step in [(1, 0), (2, 0), (2, 1), (2, 2), (2, 2)]:
        live.publish(event_id=event_id, version=version, step=step)

    told = [json.loads(body) for _, body in live.read(0).entries]
    assert [(body["version"], body["step"]) for body in told] == [(1, 0), (2, 0), (2, 1), (2, 2)]


def test_everything_in_redis_expires(live: Live) -> None:
    live.publish(2)

    lifetimes = {key: live.client.ttl(key) for key in live.client.scan_iter("*")}

    assert len(lifetimes) == 2 + 2 * 4, "markers; meta and stream of two events, the audience and the tenant"
    assert all(0 < seconds <= WINDOW_SECONDS for seconds in lifetimes.values()), lifetimes


def test_the_window_keeps_about_as_many_updates_as_it_is_told_to(live: Live) -> None:
    live.publish(400)

    reading = live.read()

    assert reading.top == 400
    assert reading.first is not None
    assert 100 <= 400 - reading.first + 1 < 400


def test_a_quiet_topic_has_a_position_to_resume_from(live: Live) -> None:
    first = live.read()
    live.publish(2)

    assert (first.top, first.first, first.entries) == (0, None, [])
    assert live.read(0).epoch == first.epoch
    assert live.offsets(since=first.top) == [1, 2]


def test_reading_keeps_a_quiet_topic_s_epoch_alive(live: Live) -> None:
    meta = topic_keys("acme", TOPIC).meta
    live.publish()
    live.client.expire(meta, 5)

    live.read()

    assert live.client.ttl(meta) > 5


@pytest.mark.parametrize(
    ("since", "limit", "offsets"),
    [
        (0, 10, [1, 2, 3, 4, 5]),
        (3, 10, [4, 5]),
        (5, 10, []),
        (9, 10, []),
        ("", 10, []),
        (0, 4, []),
        (1, 4, [2, 3, 4, 5]),
    ],
)
def test_a_reading_is_everything_after_an_offset_or_nothing(
    live: Live, since: int | str, limit: int, offsets: list[int]
) -> None:
    live.publish(5)

    assert [offset for offset, _ in live.read(since, limit=limit).entries] == offsets


def test_a_reading_is_never_a_part_of_what_was_missed(live: Live) -> None:
    live.publish(5)
    live.client.xtrim(topic_keys("acme", TOPIC).stream, minid="3-0", approximate=False)

    reading = live.read(1)

    assert (reading.top, reading.first, reading.entries) == (5, 3, [])
    assert [offset for offset, _ in live.read(2).entries] == [3, 4, 5]


def test_an_update_that_is_too_long_is_published_without_its_largest_details(live: Live) -> None:
    detail = {"result": "日" * 30_000, "error": {"type": "E", "message": "x" * 60_000}, "reason": "y" * 9_000}
    live.publish(detail=detail)
    live.publish(detail={"result": "x" * 65_000})

    bodies = [body for _, body in live.read(0).entries]
    [first, second] = [json.loads(body)["detail"] for body in bodies]
    assert first == {"reason": "y" * 9_000, "truncated": ["error", "result"]}
    assert second == {"result": "x" * 65_000}
    assert all(len(body) <= MAX_UPDATE_BYTES for body in bodies)


def test_flushall_begins_a_new_epoch_at_offset_one(live: Live) -> None:
    live.publish(3)
    before = live.read()

    live.client.flushall()
    live.publish()

    after = live.read(0)
    assert after.epoch != before.epoch
    assert (after.top, after.first) == (1, 1)


def test_a_topic_that_expired_begins_a_new_epoch(live: Live) -> None:
    live.publish(3)
    before = live.read()
    live.client.delete(topic_keys("acme", TOPIC).meta)

    live.publish()

    after = live.read(0)
    assert after.epoch != before.epoch
    assert [offset for offset, _ in after.entries] == [1], "the old epoch's stream is gone"


def test_redis_restored_from_an_older_dump_begins_a_new_epoch(
    connect: Callable[[str], Live], own_valkey: Valkey, tmp_path: Path
) -> None:
    live = connect(own_valkey.url())
    live.publish(3)
    own_valkey.execute("SAVE")
    shutil.copy(own_valkey.folder / "dump.rdb", tmp_path / "older.rdb")
    live.publish(2)
    before = live.read()
    own_valkey.kill()
    shutil.copy(tmp_path / "older.rdb", own_valkey.folder / "dump.rdb")
    own_valkey.start()
    assert own_valkey.execute("HGET", topic_keys("acme", TOPIC).meta, "offset") == b"3", "the older state is back"

    live.publish(2)

    after = live.read(0)
    assert before.top == 5
    assert after.epoch != before.epoch, "else a client at offset 5 would take the old 4 and 5 for the new ones"
    assert [offset for offset, _ in after.entries] == [1, 2]


def test_reading_first_after_a_restore_also_begins_a_new_epoch(
    connect: Callable[[str], Live], own_valkey: Valkey
) -> None:
    live = connect(own_valkey.url())
    live.publish(3)
    before = live.read()
    own_valkey.execute("SAVE")
    own_valkey.kill()
    own_valkey.start()

    after = live.read(1)

    assert after.epoch != before.epoch
    assert (after.top, after.first, after.entries) == (0, None, [])


def test_a_publisher_outlives_a_restart_of_redis(connect: Callable[[str], Live], own_valkey: Valkey) -> None:
    live = connect(own_valkey.url())
    live.publish()
    own_valkey.stop()
    with pytest.raises(LiveWindowUnavailable):
        live.publish()
    own_valkey.start()

    live.publish(2)

    assert live.offsets(since=0) == [1, 2]


def test_a_publisher_outlives_the_loss_of_its_script(live: Live) -> None:
    live.publish()
    live.client.script_flush()

    live.publish(2)

    assert live.offsets(since=0) == [1, 2, 3]


def test_publishing_nothing_asks_redis_nothing(connect: Callable[[str], Live], own_valkey: Valkey) -> None:
    live = connect(own_valkey.url())
    own_valkey.stop()

    live.publisher.publish([])


def test_a_topic_with_colons_and_spaces_is_read_back(live: Live) -> None:
    live.publish(audience="a:b c é")

    assert live.read(0, topic="audience:a:b c é").top == 1


@pytest.mark.parametrize("body", [b"{}", b'{"a": "b c:d"}', b""])
def test_a_message_is_split_at_its_position(body: bytes) -> None:
    assert parse_message(b"a1-9:41 " + body) == ("a1-9", 41, body)
