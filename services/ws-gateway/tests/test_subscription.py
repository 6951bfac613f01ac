"""One client in one topic: what its own reading and the topic's feed both tell is told once."""

import json
from typing import Any

import pytest

from holdfast.domain.position import GapReason, Position
from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Frame
from holdfast.gateway.protocol.frames import Limits
from holdfast.gateway.topics.feed import Jump, Message
from holdfast.gateway.topics.topic import Subscription, Topic

E1, E2 = "run1-1", "run2-2"


class Queue:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self.code: CloseCode | None = None

    def enqueue(self, frame: Frame) -> None:
        self.frames.append(json.loads(frame.payload))

    def close(self, code: CloseCode, reason: str) -> None:
        assert reason
        self.code = code

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(frame["type"], frame["pos"]) for frame in self.frames]


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def topic() -> Topic:
    return Topic("acme", "audience:a", Limits())


def subscribe(topic: Topic, queue: Queue, limits: Limits | None = None) -> Subscription:
    subscription = Subscription(topic, queue, limits or Limits())
    topic.subscriptions.add(subscription)
    return subscription


def message(offset: int, epoch: str = E1) -> Message:
    return Message(epoch, offset, b"{}")


def test_what_was_held_and_was_read_as_well_is_told_once(topic: Topic, queue: Queue) -> None:
    subscription = subscribe(topic, queue)
    topic.pass_on([message(5), message(6), message(7)])

    subscription.start(Position(E1, 6))
    topic.pass_on([message(8)])

    assert queue.told == [("update", f"{E1}:7"), ("update", f"{E1}:8")]
    assert queue.code is None


def test_a_client_ahead_of_its_topic_waits_for_it(topic: Topic, queue: Queue) -> None:
    subscription = subscribe(topic, queue)
    subscription.start(Position(E1, 9))

    topic.pass_on([message(8), message(9), message(10)])

    assert queue.told == [("update", f"{E1}:10")]
    assert queue.code is None


def test_a_jump_to_where_the_client_already_is_is_not_told(topic: Topic, queue: Queue) -> None:
    subscription = subscribe(topic, queue)
    topic.pass_on([message(5), Jump(GapReason.EPOCH, Position(E2, 3)), message(4, E2)])

    subscription.start(Position(E2, 3))

    assert queue.told == [("update", f"{E2}:4")]


def test_a_jump_beyond_the_client_is_a_gap(topic: Topic, queue: Queue) -> None:
    subscription = subscribe(topic, queue)
    topic.pass_on([Jump(GapReason.TRIMMED, Position(E1, 30)), message(31)])

    subscription.start(Position(E1, 20))

    assert queue.told == [("gap", f"{E1}:30"), ("update", f"{E1}:31")]


def test_a_hole_ends_the_connection_rather_than_being_passed_on(topic: Topic, queue: Queue) -> None:
    subscription = subscribe(topic, queue)
    subscription.start(Position(E1, 5))

    topic.pass_on([message(7)])

    assert (queue.told, queue.code) == ([], CloseCode.RESYNC)


def test_holding_has_an_end(topic: Topic, queue: Queue) -> None:
    subscribe(topic, queue, Limits(queue_frames=20))

    topic.pass_on([message(offset) for offset in range(1, 11)])
    assert queue.code is None
    topic.pass_on([message(11)])

    assert queue.code is CloseCode.SLOW_CONSUMER


def test_clients_of_one_topic_that_stand_together_or_apart_get_what_is_new_to_them(topic: Topic, queue: Queue) -> None:
    together, apart = queue, Queue()
    subscribe(topic, together).start(Position(E1, 4))
    subscribe(topic, apart).start(Position(E1, 6))

    topic.pass_on([message(5)])
    topic.pass_on([message(6), message(7)])
    topic.pass_on([Jump(GapReason.EPOCH, Position(E2, 3)), message(4, E2)])

    after = [("update", f"{E1}:7"), ("gap", f"{E2}:3"), ("update", f"{E2}:4")]
    assert together.told == [("update", f"{E1}:5"), ("update", f"{E1}:6"), *after]
    assert apart.told == after
    assert together.code is apart.code is None
