"""The Dramatiq broker, set up so that correctness never depends on it.

Retries, delays and dead letters live in PostgreSQL. The middleware is therefore an explicit list without Retries (it loses
a message when Redis is down at the wrong moment, and the message is acknowledged all the same), AgeLimit, TimeLimit (it
raises into threads and can end them for good), ShutdownNotifications (it interrupts actors as soon as the grace begins),
Callbacks, Pipelines and Prometheus.

:class:`DoorbellBroker` keeps Dramatiq's keys and worker and changes how they are waited for. Its consumer sleeps in Redis
on a bell instead of polling with a backoff, and acknowledges in the call that fetches. With prototypes of the two, an idle
system took 209 ms from POST to ``processed`` at the median, and 6 ms. What a crash can do to it is harmless here: a
doorbell that is lost is rung again, and one that is delivered twice is stale.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from typing import Any
from uuid import uuid4

import redis
from dramatiq import Message
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import Middleware
from redis.exceptions import RedisError

from holdfast.messaging.bell import Room
from holdfast.messaging.connect import redis_client
from holdfast.messaging.doorbell import Encoded

__all__ = ["HEARTBEAT_TIMEOUT_MS", "DoorbellBroker", "SleepingConsumer", "redis_broker"]

HEARTBEAT_TIMEOUT_MS = 15_000
"""After which other workers may take over the messages of a dead one. Doorbells are hints: the exact time matters little."""

MAX_BELLS = 64
"""Consumers that one burst can wake at once; the others look a few seconds later anyway."""

RING_LIMIT = 500
"""Messages in one script call: Redis serves nobody else meanwhile."""

_RING = files(__package__).joinpath("ring.lua").read_text()
_EXCHANGE = files(__package__).joinpath("exchange.lua").read_text()


def redis_broker(
    url: str, *, timeout_seconds: float, is_consumer: bool, middleware: Sequence[Middleware] = ()
) -> "DoorbellBroker":
    """A broker for ringing (``is_consumer=False``) or for a worker.

    Only consumers do Dramatiq's upkeep of dead workers' messages: in a request it would cost the wrong caller time.
    """
    return DoorbellBroker(
        url,
        timeout_seconds=timeout_seconds,
        middleware=middleware,
        maintenance_chance=50_000 if is_consumer else 0,
    )


class DoorbellBroker(RedisBroker):
    """Dramatiq's Redis broker with bulk enqueue and a consumer that sleeps until there is something to do.

    There are no delayed messages: an event's ``available_at`` lives in PostgreSQL.
    """

    def __init__(
        self, url: str, *, timeout_seconds: float, middleware: Sequence[Middleware], maintenance_chance: int
    ) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            client=redis_client(url, timeout_seconds=timeout_seconds),
            middleware=list(middleware),
            heartbeat_timeout=HEARTBEAT_TIMEOUT_MS,
            maintenance_chance=maintenance_chance,
        )
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._ring: Any = self.client.register_script(_RING)
        self._rooms: dict[str, Room] = {}

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue, without Dramatiq's companion for delayed messages and the thread that would poll it."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Enqueue one message.

        Raises:
            NotImplementedError: a delay was asked for.
            redis.exceptions.RedisError: Redis did not take it.
        """
        if delay:
            raise NotImplementedError("delayed messages are not used: set the event's available_at instead")
        return self.enqueue_many([message])[0]

    def enqueue_many(self, messages: Iterable[Message[Any]]) -> list[Message[Any]]:
        """Enqueue messages in one round trip for each ``RING_LIMIT`` messages of a queue.

        Raises:
            redis.exceptions.RedisError: Redis did not take all of them.
        """
        copies = [message.copy(options={"redis_message_id": str(uuid4())}) for message in messages]
        for queue_name in dict.fromkeys(message.queue_name for message in copies):
            queued = [message for message in copies if message.queue_name == queue_name]
            self.enqueue_encoded(
                queue_name, [Encoded(each.options["redis_message_id"], each.encode().decode()) for each in queued]
            )
        return copies

    def enqueue_encoded(self, queue_name: str, messages: Sequence[Encoded]) -> None:
        """Enqueue messages in one round trip for each ``RING_LIMIT`` of them.

        Raises:
            redis.exceptions.RedisError: Redis did not take all of them.
        """
        keys = self._keys(queue_name)
        for start in range(0, len(messages), RING_LIMIT):
            arguments: list[Any] = [MAX_BELLS]
            for message in messages[start : start + RING_LIMIT]:
                arguments += message
            self._ring(keys=keys, args=arguments)

    def rehearse(self) -> None:
        """Ring a bell that nobody hears, with the script that rings all others, and take it away again.

        Raises:
            redis.exceptions.RedisError: Redis does not answer, takes no writes, or does not let this user ring.
        """
        queue = f"rehearsal.{self.broker_id}"
        queue_key, bodies_key, bell_key, turns_key = keys = self._keys(queue)
        with self.client.pipeline(transaction=False) as pipeline:
            self._ring(keys=keys, args=[1, *Encoded("rehearsal", "")], client=pipeline)
            pipeline.zrem(queue_key, "rehearsal")
            pipeline.hdel(bodies_key, "rehearsal")
            pipeline.lpop(bell_key)
            pipeline.delete(turns_key)
            pipeline.execute()

    def _keys(self, queue_name: str) -> tuple[str, str, str, str]:
        return (
            self.key(f"{queue_name}.turns"), self.key(f"{queue_name}.msgs"), self.key(f"{queue_name}.bell"),
            self.key(f"{queue_name}.shares"),
        )  # fmt: skip

    def key(self, name: str) -> str:
        """A name in this broker's part of Redis."""
        return f"{self.namespace}:{name}"

    def limit(self, queue_name: str, room: Room) -> None:
        """Let consumers of this queue take as many messages as there is room for, instead of those that a worker prefetches.

        Comes before :meth:`consume`.
        """
        self._rooms[queue_name] = room

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> "Consumer":
        """A consumer that returns ``None`` after ``timeout`` ms without a message."""
        # Its own connection: it sleeps in a blocking call for longer than other calls may take.
        sleeper = redis_client(self._url, timeout_seconds=timeout / 1000 + self._timeout_seconds)
        room = self._rooms.get(queue_name) or _Prefetch(prefetch)
        return SleepingConsumer(self, queue_name, room, timeout_ms=timeout, sleeper=sleeper)


class _Prefetch:
    """Room for a fixed number of messages."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._changed = threading.Condition()

    def take(self, timeout_seconds: float) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self._free, timeout_seconds)
            taken, self._free = self._free, 0
        return taken

    def give_back(self, count: int) -> None:
        with self._changed:
            self._free += count
            self._changed.notify_all()


class SleepingConsumer(Consumer):
    """Sleeps in Redis until a bell rings.

    Each message that it hands out has a place in the room, from before it is fetched until it is done.
    """

    def __init__(
        self, broker: DoorbellBroker, queue_name: str, room: Room, *, timeout_ms: int, sleeper: "redis.Redis"
    ) -> None:
        self._broker = broker
        self._queue_name = queue_name
        self._room = room
        self._timeout_seconds = timeout_ms / 1000
        self._sleeper = sleeper
        self._exchange: Any = broker.client.register_script(_EXCHANGE)
        self._fetched: deque[bytes] = deque()
        self._finished: deque[str] = deque()
        self._is_interrupted = False

    def __next__(self) -> MessageProxy | None:
        try:
            return self._next()
        except RedisError as exc:
            raise ConnectionClosed(exc) from None  # type: ignore[no-untyped-call]

    def ack(self, message: MessageProxy) -> None:
        """Remember it for the next exchange. One that is lost with its process comes back as a stale doorbell."""
        self._room.give_back(1)
        self._finished.append(message.options["redis_message_id"])

    def nack(self, message: MessageProxy) -> None:
        """Put a message that nobody understands on Dramatiq's dead queue."""
        self._room.give_back(1)
        try:
            self._broker.do_nack(self._queue_name, message.options["redis_message_id"])
        except RedisError as exc:
            raise ConnectionClosed(exc) from None  # type: ignore[no-untyped-call]

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Give back what a worker that stops has fetched and not begun."""
        if ids := [message.options["redis_message_id"] for message in messages]:
            self._room.give_back(len(ids))
            self._broker.do_requeue(self._queue_name, *ids)

    def interrupt(self) -> None:
        """Sleep no more, from now on: its thread is to stop."""
        self._is_interrupted = True
        self._sleeper.connection_pool.disconnect()

    def close(self) -> None:
        """Acknowledge what is finished, and give back what was not handed out."""
        left = [MessageProxy(Message.decode(self._fetched.popleft())) for _ in range(len(self._fetched))]
        try:
            self.requeue(left)
            self._fetch(0)
        except RedisError:
            pass  # they come back as stale doorbells
        finally:
            self._sleeper.close()

    def _next(self) -> MessageProxy | None:
        if not self._fetched:
            began = time.monotonic()
            places = self._room.take(self._timeout_seconds)
            # A bell rings once. Who has had no room for all that time leaves it to the others.
            is_full = not places and time.monotonic() - began >= self._timeout_seconds
            if places:
                self._fetch_into(places, self._fetch)
            elif self._finished:
                self._fetch(0)
        if not self._fetched:
            if not (self._finished or is_full):
                self._sleep()
            return None
        return MessageProxy(Message.decode(self._fetched.popleft()))

    def _fetch_into(self, places: int, fetch: Callable[[int], Sequence[bytes]]) -> None:
        got: Sequence[bytes] = ()
        try:
            got = fetch(places)
        finally:
            self._room.give_back(places - len(got))
        self._fetched.extend(got)

    def _fetch(self, wanted: int) -> list[bytes]:
        acknowledged = [self._finished.popleft() for _ in range(min(len(self._finished), RING_LIMIT))]
        broker = self._broker
        keys = [
            broker.key(self._queue_name),
            broker.key(f"{self._queue_name}.msgs"),
            broker.key(f"__acks__.{broker.broker_id}.{self._queue_name}"),
            broker.key("__heartbeats__"),
            broker.key(f"{self._queue_name}.turns"),
            broker.key(f"{self._queue_name}.shares"),
        ]
        arguments = [int(time.time() * 1000), broker.broker_id, wanted, *acknowledged]
        bodies: list[bytes] = self._exchange(keys=keys, args=arguments)
        return bodies

    def _sleep(self) -> None:
        if self._is_interrupted:
            return
        try:
            if self._sleeper.blpop([self._broker.key(f"{self._queue_name}.bell")], timeout=self._timeout_seconds):
                return
        except RedisError:
            if self._is_interrupted:
                return
            raise
        # Nothing to do for a while: Dramatiq's own fetch also looks after the messages of dead workers, now and then.
        if places := self._room.take(0):
            self._fetch_into(
                places, lambda most: self._broker.do_fetch(self._queue_name, most) or self._fetch(most)
            )  # fmt: skip
