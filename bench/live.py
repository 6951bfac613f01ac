"""Live clients: what a delivery and a connection cost a server, and how long a crowd takes to come back.

Linux only: cost is read from ``/proc``, of the server alone, so that the load generator beside it does not count.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Protocol

import redis

from bench.crowd import Crowd
from bench.usage import cpu_seconds, resident_kib
from holdfast.client import Client
from holdfast.domain.state import State
from holdfast.domain.update import Update
from holdfast.local.stack import TENANT, Stack
from holdfast.messaging.live import Publisher
from holdfast.runtime.ids import uuid7

__all__ = [
    "BURST",
    "CLIENTS",
    "DELIVERIES",
    "IDLE",
    "MISSED",
    "RESUMING",
    "Gateway",
    "Server",
    "an_update",
    "deliveries",
    "memory",
    "resume",
]

CLIENTS = 500
IDLE = 2000
RESUMING = 1000
MISSED = 20
BURST = 10
"""Updates published together where many are on their way: what a busy topic gets in a turn of the gateway's loop."""
DELIVERIES = "deliveries/CPU-s"
AT_ONCE = 50
"""Clients that connect together before memory is read: what a herd needs for a moment is another matter."""

SETTLE_SECONDS = 1.0
"""For what a handshake leaves behind to be freed, before memory is read."""

CLIENTS_PER_SUBJECT = 100
"""Below what the gateway allows one subject."""


class Server(Protocol):
    """What is measured: the gateway, or a peer."""

    @property
    def url(self) -> str:
        """Where its WebSocket is."""

    @property
    def pid(self) -> int:
        """Its process."""

    def hello(self, number: int, topic: str) -> bytes:
        """The first message of a client that wants a topic."""

    async def publish(self, topics: Iterable[str]) -> None:
        """Publish an update to each of them."""


class Gateway:
    """The stack's gateway."""

    def __init__(self, stack: Stack) -> None:
        self.url = stack.live_url
        self._stack = stack
        self._tokens: dict[int, str] = {}
        self._redis = redis.Redis.from_url(stack.redis.url(1), socket_timeout=10)
        self._publisher = Publisher(self._redis, window_seconds=600, window_updates=1000)

    @property
    def pid(self) -> int:
        """Of the process that serves now."""
        return self._stack.services["ws-gateway"].pid

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Stopped meanwhile; ready again afterwards, as a new process."""
        self._stack.hold("ws-gateway")
        try:
            yield
        finally:
            self._stack.resume("ws-gateway")

    def hello(self, number: int, topic: str, *, session: str | None = None, position: str = "") -> bytes:
        """…and, for a client that comes back, its session and where it stopped."""
        subject = number // CLIENTS_PER_SUBJECT
        if subject not in self._tokens:
            with Client(self._stack.ingest_url, self._stack.api_key) as client:
                self._tokens[subject] = client.token(["audience:*"], sub=f"bench-{subject}").token
        frame = {"type": "hello", "v": 1, "token": self._tokens[subject], "topics": [topic]}
        if session:
            frame |= {"session": session, "positions": {topic: position}}
        return json.dumps(frame).encode()

    async def publish(self, topics: Iterable[str]) -> None:
        """In one round trip."""
        self._publisher.publish([an_update(topic) for topic in topics])


def deliveries(server: Server, *, seconds: float, burst: int, topics: int = 1) -> float:
    """Updates delivered for each CPU-second of the server, to 500 clients spread over ``topics`` topics.

    ``burst`` updates are published together to each topic, and the next ones when every client has got them.
    """
    return asyncio.run(_deliveries(server, seconds, burst, topics))


def memory(server: Server) -> float:
    """KiB that an idle, subscribed connection takes, in a server that nobody has connected to before."""
    return asyncio.run(_memory(server))


def resume(gateway: Gateway, *, topics: int) -> float:
    """Seconds until 1,000 clients, coming at once to a gateway that has just started, have the 20 updates they missed."""
    return asyncio.run(_resume(gateway, topics))


async def _deliveries(server: Server, seconds: float, burst: int, topics: int) -> float:
    names = [_topic(number) for number in range(topics)]
    crowd = Crowd(server.url)
    await crowd.connect(server.hello(number, names[number % topics]) for number in range(CLIENTS))
    wanted = 0

    async def publish() -> None:
        nonlocal wanted
        for some in _parts(names, 50):
            await server.publish(some * burst)
        wanted += burst * CLIENTS
        await crowd.wait(updates=wanted)

    await publish()
    before, before_updates = cpu_seconds([server.pid]), wanted
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await publish()
    used = cpu_seconds([server.pid]) - before
    crowd.leave()
    return (wanted - before_updates) / used


async def _memory(server: Server) -> float:
    crowd = Crowd(server.url)
    before = resident_kib(server.pid)
    for first in range(0, IDLE, AT_ONCE):
        await crowd.connect(server.hello(number, _topic(0)) for number in range(first, first + AT_ONCE))
    await asyncio.sleep(SETTLE_SECONDS)
    grown = resident_kib(server.pid) - before
    crowd.leave()
    return grown / IDLE


async def _resume(gateway: Gateway, topics: int) -> float:
    names = [_topic(number) for number in range(topics)]
    before = Crowd(gateway.url)
    await before.connect(gateway.hello(number, names[number % topics]) for number in range(RESUMING))
    # In the order of their numbers, unlike ``before.clients``, which are in the order in which they were let in.
    hellos = [
        gateway.hello(client.number, names[client.number % topics], session=client.session, position=client.position)
        for client in before.clients
    ]
    before.leave()
    with gateway.away():
        for some in _parts(names, 50):
            await gateway.publish(some * MISSED)
    crowd = Crowd(gateway.url)
    began = time.monotonic()
    await crowd.connect(hellos)
    await crowd.wait(updates=MISSED * RESUMING)
    took = time.monotonic() - began
    crowd.leave()
    return took


def _topic(number: int) -> str:
    return f"audience:bench-{number}"


def an_update(topic: str) -> Update:
    """News that is published to the topic, which is one of an audience."""
    return Update(
        event_id=uuid7(), tenant=TENANT, type="com.acme.order.placed", audience=topic.partition(":")[2],
        state=State.PROCESSED, version=3, attempt=1, at=datetime.now(UTC),
        detail={"result": {"order_id": "A-10042", "total": 129.9, "currency": "EUR"}},
    )  # fmt: skip


def _parts(names: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(names), size):
        yield names[start : start + size]
