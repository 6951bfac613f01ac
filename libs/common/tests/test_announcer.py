"""Telling what was committed, with a Redis that takes it and with several that do not."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import redis
import structlog

from holdfast.domain.errors import BrokerUnavailable, LiveWindowUnavailable
from holdfast.domain.event import Doorbell
from holdfast.domain.state import State
from holdfast.domain.update import Update
from holdfast.local.servers import Valkey
from holdfast.messaging.announce import Announcer
from holdfast.messaging.brokers import open_bell
from holdfast.messaging.live import open_publisher, topic_keys
from holdfast.runtime.telemetry import Log, Metrics


class Told:
    """An announcer on one Redis."""

    def __init__(self, url: str) -> None:
        self.bell = open_bell(url, timeout_seconds=1, is_consumer=False)
        self.publisher = open_publisher(url, timeout_seconds=1, window_seconds=600, window_updates=100)
        self.announcer = Announcer(self.publisher, self.bell)

    def close(self) -> None:
        self.bell.close()
        self.publisher.close()


@pytest.fixture
def announce() -> Iterator[Callable[[str], Told]]:
    with contextlib.ExitStack() as opened:

        def make(url: str) -> Told:
            told = Told(url)
            opened.callback(told.close)
            return told

        yield make


def update(version: int = 1) -> Update:
    return Update(
        event_id=uuid4(), tenant="acme", type="x", audience="user-1", state=State.QUEUED, version=version, step=0,
        attempt=0, at=datetime.now(UTC), detail={},
    )  # fmt: skip


def test_what_redis_took_is_not_missing(announce: Callable[[str], Told], redis_url: str) -> None:
    told, updates = announce(redis_url), [update(1), update(2)]

    assert told.announcer.publish(updates)
    assert told.announcer.ring([Doorbell(each.event_id, each.version) for each in updates])

    keys, other = [(each.event_id, each.version) for each in updates], (updates[0].event_id, 9)
    assert told.publisher.missing(keys) == []
    assert told.publisher.missing([keys[0], other, keys[1]]) == [other]


def test_progress_is_shown_and_is_no_update_of_its_version(announce: Callable[[str], Told], redis_url: str) -> None:
    told, progress = announce(redis_url), replace(update(), step=1)

    assert told.announcer.publish_progress(progress)

    with redis.Redis.from_url(redis_url) as client:
        assert client.xlen(topic_keys("acme", f"event:{progress.event_id}").stream) == 1
    assert told.publisher.missing([(progress.event_id, 1)]) == [(progress.event_id, 1)]


def test_what_redis_did_not_take_is_counted_and_logged_once_an_outage(
    announce: Callable[[str], Told], own_valkey: Valkey
) -> None:
    told = announce(own_valkey.url())
    own_valkey.stop()
    before = Metrics.enqueue_failures._value.get()

    with structlog.testing.capture_logs() as lines:
        for _ in range(20):
            assert not told.announcer.publish([update(), update()])
            assert not told.announcer.ring([Doorbell(uuid4(), 1)])

    assert Metrics.enqueue_failures._value.get() - before == 20 * 3
    warnings = [line["event"] for line in lines if line["log_level"] == "warning"]
    assert sorted(warnings) == sorted([Log.NOT_PUBLISHED, Log.NOT_ENQUEUED])
    with pytest.raises(LiveWindowUnavailable):
        told.publisher.missing([(uuid4(), 1)])


def test_the_end_of_an_outage_is_logged_with_what_was_missed(
    announce: Callable[[str], Told], own_valkey: Valkey, eventually: Any
) -> None:
    told = announce(own_valkey.url())
    own_valkey.stop()
    for _ in range(3):
        told.announcer.ring([Doorbell(uuid4(), 1)])
    own_valkey.start()

    with structlog.testing.capture_logs() as lines:
        eventually(lambda: told.announcer.ring([Doorbell(uuid4(), 1)]), message="the breaker lets one through again")

    [line] = [line for line in lines if line["event"] == Log.BROKER_BACK]
    assert line["missed"] >= 3


def test_nothing_to_tell_is_no_failure(announce: Callable[[str], Told], own_valkey: Valkey) -> None:
    told = announce(own_valkey.url())
    own_valkey.stop()

    assert told.announcer.publish([])
    assert told.announcer.ring([])


def read_only(server: Valkey) -> str:
    server.execute("REPLICAOF", "127.0.0.1", "1")
    return server.url()


def without(*commands: str) -> Callable[[Valkey], str]:
    def restrict(server: Valkey) -> str:
        server.execute(
            "ACL", "SETUSER", "limited", "on", ">word", "~*", "&*", "+@all", *(f"-{name}" for name in commands)
        )
        return f"redis://limited:word@127.0.0.1:{server.port}/0"

    return restrict


def full(server: Valkey) -> str:
    server.execute("CONFIG", "SET", "maxmemory", "1")
    return server.url()


@pytest.mark.parametrize(
    "spoil", [read_only, full, without("info"), without("publish"), without("xadd"), without("hincrby")]
)
def test_a_window_that_answers_and_takes_nothing_is_noticed_by_a_ping(
    announce: Callable[[str], Told], own_valkey: Valkey, spoil: Callable[[Valkey], str]
) -> None:
    told = announce(spoil(own_valkey))

    with pytest.raises(LiveWindowUnavailable):
        told.publisher.publish([update()])
    with pytest.raises(LiveWindowUnavailable):
        told.publisher.ping()


@pytest.mark.parametrize("spoil", [read_only, full, without("zadd"), without("hset"), without("ltrim")])
def test_a_broker_that_answers_and_takes_nothing_is_noticed_by_a_ping(
    announce: Callable[[str], Told], own_valkey: Valkey, spoil: Callable[[Valkey], str]
) -> None:
    told = announce(spoil(own_valkey))

    with pytest.raises(BrokerUnavailable):
        told.bell.ring([Doorbell(uuid4(), 1)])
    with pytest.raises(BrokerUnavailable):
        told.bell.ping()


def test_pings_leave_nothing_behind(announce: Callable[[str], Told], own_valkey: Valkey) -> None:
    told = announce(own_valkey.url())

    for _ in range(5):
        told.bell.ping()
        told.publisher.ping()

    assert own_valkey.execute("DBSIZE") <= 2 + 5, "the topic's two names and a marker a ping, all of which expire"
    for key in own_valkey.execute("KEYS", "*"):
        assert 0 < own_valkey.execute("TTL", key) <= 10
