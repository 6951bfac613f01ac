"""The broker: ringing, and the consumer that sleeps on a bell, with Dramatiq's real worker."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import dramatiq
import pytest
from dramatiq import Worker

from holdfast.domain.errors import BrokerUnavailable
from holdfast.domain.event import Doorbell
from holdfast.local.fixtures import Eventually
from holdfast.local.servers import Valkey, free_port
from holdfast.messaging.broker import MAX_BELLS, RING_LIMIT, DoorbellBroker, redis_broker
from holdfast.messaging.doorbell import ACTOR, QUEUE, message_of
from holdfast.messaging.redis_bell import RedisBell

MakeBroker = Callable[..., DoorbellBroker]


@pytest.fixture
def make_broker(redis_url: str) -> Iterator[MakeBroker]:
    made: list[DoorbellBroker] = []

    def make(url: str = redis_url, *, is_consumer: bool = False) -> DoorbellBroker:
        made.append(redis_broker(url, timeout_seconds=2, is_consumer=is_consumer))
        return made[-1]

    yield make
    for broker in made:
        broker.client.close()


class Listener:
    """A Dramatiq worker whose actor notes the doorbells."""

    def __init__(self, broker: DoorbellBroker, *, threads: int = 4) -> None:
        self.heard: list[tuple[UUID, int]] = []
        self.heard_at: list[float] = []
        self.finished = 0
        self.gate = threading.Event()
        self.gate.set()
        dramatiq.actor(broker=broker, actor_name=ACTOR, queue_name=QUEUE)(self._hear)
        self.worker = Worker(broker, worker_timeout=200, worker_threads=threads)
        self.worker.start()

    def _hear(self, event_id: str, version: int) -> None:
        self.heard_at.append(time.monotonic())
        self.heard.append((UUID(event_id), version))
        self.gate.wait(20)
        self.finished += 1


@pytest.fixture
def listen(make_broker: MakeBroker) -> Iterator[Callable[..., Listener]]:
    listeners: list[Listener] = []

    def one(url: str | None = None, **options: Any) -> Listener:
        broker = make_broker(url, is_consumer=True) if url else make_broker(is_consumer=True)
        listeners.append(Listener(broker, **options))
        return listeners[-1]

    yield one
    for listener in listeners:
        listener.gate.set()
        listener.worker.stop(timeout=5000)


def doorbells(count: int) -> list[Doorbell]:
    return [Doorbell(uuid4(), number) for number in range(1, count + 1)]


def waiting(broker: DoorbellBroker) -> int:
    """Messages in Redis, fetched or not."""
    return int(broker.client.hlen(broker.key(f"{QUEUE}.msgs")))


def test_a_doorbell_carries_an_id_and_a_version(make_broker: MakeBroker) -> None:
    broker, event_id = make_broker(), uuid4()

    RedisBell(broker).ring([Doorbell(event_id, 3)])

    [body] = broker.client.hvals(broker.key(f"{QUEUE}.msgs"))
    message = json.loads(body)
    assert (message["queue_name"], message["actor_name"], message["args"]) == (QUEUE, ACTOR, [str(event_id), 3])
    assert message["kwargs"] == {}


def test_every_doorbell_rung_is_heard_once_and_acknowledged(
    make_broker: MakeBroker, listen: Callable[..., Listener], eventually: Eventually
) -> None:
    broker, rung = make_broker(), doorbells(RING_LIMIT + 100)
    RedisBell(broker).ring(rung)

    listener = listen()

    eventually(lambda: len(listener.heard) >= len(rung))
    eventually(lambda: waiting(broker) == 0, message="all are acknowledged")
    assert broker.client.keys(f"{broker.namespace}:__acks__*") == [], "nobody has them in hand any more"
    assert Counter(listener.heard) == Counter((each.event_id, each.version) for each in rung)


@pytest.mark.parametrize(("rung", "bells"), [(3, 3), (MAX_BELLS + 5, MAX_BELLS)])
def test_there_is_a_bell_for_each_message_up_to_a_bound(make_broker: MakeBroker, rung: int, bells: int) -> None:
    broker = make_broker()

    RedisBell(broker).ring(doorbells(rung))
    RedisBell(broker).ring(doorbells(1))

    assert broker.client.zcard(broker.key(f"{QUEUE}.turns")) == rung + 1
    assert broker.client.llen(broker.key(f"{QUEUE}.bell")) == min(bells + 1, MAX_BELLS)


def test_a_sleeping_consumer_wakes_at_the_bell(
    make_broker: MakeBroker, listen: Callable[..., Listener], eventually: Eventually
) -> None:
    broker, listener = make_broker(), listen()
    RedisBell(broker).ring(doorbells(1))
    eventually(lambda: listener.heard)
    eventually(lambda: broker.client.info("clients")["blocked_clients"] == 1, message="the consumer sleeps in Redis")

    rung_at = time.monotonic()
    RedisBell(broker).ring(doorbells(1))

    eventually(lambda: len(listener.heard) == 2)
    assert listener.heard_at[1] - rung_at < 0.15, "it did not sleep for its whole timeout of 200 ms"


@pytest.mark.parametrize("queue", [QUEUE, f"{QUEUE}.turns"])
def test_messages_left_without_a_bell_are_found(
    make_broker: MakeBroker, listen: Callable[..., Listener], eventually: Eventually, queue: str
) -> None:
    broker, listener = make_broker(), listen()
    eventually(lambda: broker.client.info("clients")["blocked_clients"] == 1)
    message = message_of(Doorbell(uuid4(), 1)).copy(options={"redis_message_id": "m"})
    with broker.client.pipeline() as pipeline:
        pipeline.hset(broker.key(f"{QUEUE}.msgs"), "m", message.encode())
        if queue == QUEUE:
            pipeline.rpush(broker.key(queue), "m")
        else:
            pipeline.zadd(broker.key(queue), {"m": 1})
        pipeline.execute()

    eventually(lambda: len(listener.heard) == 1, timeout_seconds=3)


def test_a_consumer_takes_no_more_than_its_threads_can_prefetch(
    make_broker: MakeBroker, listen: Callable[..., Listener], eventually: Eventually
) -> None:
    broker, listener = make_broker(), listen(threads=2)
    listener.gate.clear()
    RedisBell(broker).ring(doorbells(50))
    eventually(lambda: len(listener.heard) == 2)

    left = int(broker.client.zcard(broker.key(f"{QUEUE}.turns")))

    assert left >= 50 - 2 * 2 - 2, "the rest is for other workers"
    listener.gate.set()
    eventually(lambda: len(listener.heard) == 50)


def test_a_worker_that_stops_gives_back_what_it_has_not_begun(
    make_broker: MakeBroker, listen: Callable[..., Listener], eventually: Eventually
) -> None:
    broker, rung = make_broker(), doorbells(6)
    listener = listen(threads=1)
    listener.gate.clear()
    RedisBell(broker).ring(rung)
    eventually(lambda: listener.heard)

    stopping = threading.Thread(target=listener.worker.stop, kwargs={"timeout": 5000})
    stopping.start()
    listener.gate.set()
    stopping.join(10)

    other = listen()
    eventually(lambda: len(set(listener.heard + other.heard)) == 6)
    eventually(lambda: waiting(broker) == 0)


def test_an_actor_at_work_is_not_interrupted_by_the_stop(
    make_broker: MakeBroker, listen: Callable[..., Listener], eventually: Eventually
) -> None:
    listener = listen(threads=1)
    listener.gate.clear()
    RedisBell(make_broker()).ring(doorbells(1))
    eventually(lambda: listener.heard)

    stopping = threading.Thread(target=listener.worker.stop, kwargs={"timeout": 5000})
    stopping.start()
    eventually(lambda: not listener.worker.workers[0].running, message="the stop has begun")
    listener.gate.set()
    stopping.join(10)

    assert listener.finished == 1


def test_two_workers_share_the_doorbells(
    make_broker: MakeBroker, listen: Callable[..., Listener], eventually: Eventually
) -> None:
    broker, rung = make_broker(), doorbells(200)
    first, second = listen(), listen()
    first.gate.clear()
    second.gate.clear()

    RedisBell(broker).ring(rung)

    eventually(lambda: first.heard and second.heard, message="one that is busy leaves doorbells to the other")
    first.gate.set()
    second.gate.set()
    eventually(lambda: len(first.heard) + len(second.heard) >= 200)
    assert Counter(first.heard + second.heard) == Counter((each.event_id, each.version) for each in rung)


def test_a_consumer_comes_back_with_redis(
    make_broker: MakeBroker, listen: Callable[..., Listener], own_valkey: Valkey, eventually: Eventually
) -> None:
    listener = listen(own_valkey.url())
    broker = make_broker(own_valkey.url())
    RedisBell(broker).ring(doorbells(1))
    eventually(lambda: len(listener.heard) == 1)
    own_valkey.stop()
    own_valkey.start()

    RedisBell(broker).ring(doorbells(1))

    eventually(lambda: len(listener.heard) == 2, timeout_seconds=15)


def test_a_message_for_an_unknown_actor_does_not_stop_the_others(
    make_broker: MakeBroker, listen: Callable[..., Listener], eventually: Eventually
) -> None:
    broker, listener = make_broker(), listen()

    broker.enqueue_many(
        [message_of(Doorbell(uuid4(), 1)).copy(actor_name="unheard_of"), message_of(Doorbell(uuid4(), 2))]
    )

    eventually(lambda: [version for _, version in listener.heard] == [2])


def test_ringing_a_closed_redis_fails_at_once(make_broker: MakeBroker) -> None:
    broker = make_broker(f"redis://127.0.0.1:{free_port()}/0")
    began = time.monotonic()

    with pytest.raises(BrokerUnavailable):
        RedisBell(broker).ring(doorbells(1))

    assert time.monotonic() - began < 3, "a request waits for it"


def test_the_bells_of_a_queue_that_nobody_hears_are_bounded(make_broker: MakeBroker) -> None:
    broker = make_broker()

    RedisBell(broker).ring(doorbells(1000))

    assert broker.client.zcard(broker.key(f"{QUEUE}.turns")) == 1000
    assert broker.client.llen(broker.key(f"{QUEUE}.bell")) <= 64


def test_a_delay_is_refused_with_the_remedy(make_broker: MakeBroker) -> None:
    with pytest.raises(NotImplementedError, match="available_at"):
        make_broker().enqueue(message_of(Doorbell(uuid4(), 1)), delay=10)


class NoRoom:
    """Every place is taken, for as long as anybody asks."""

    def take(self, timeout_seconds: float) -> int:
        threading.Event().wait(timeout_seconds)
        return 0

    def give_back(self, count: int) -> None:
        raise AssertionError(f"{count} were not taken")


def test_a_consumer_without_room_leaves_the_bell_to_the_others(make_broker: MakeBroker) -> None:
    broker = make_broker(is_consumer=True)
    broker.declare_queue(QUEUE)
    broker.limit(QUEUE, NoRoom())
    consumer = broker.consume(QUEUE, timeout=50)
    RedisBell(broker).ring(doorbells(1))

    assert [next(consumer) for _ in range(3)] == [None] * 3

    assert broker.client.llen(broker.key(f"{QUEUE}.bell")) == 1
    consumer.close()
