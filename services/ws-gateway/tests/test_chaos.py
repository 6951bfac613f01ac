"""Everything at once: dropped clients, killed pub/sub connections, killed gateways, a restarted Redis; and no silent hole."""

import asyncio
import itertools
import json
import random
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from redis.exceptions import RedisError
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, WebSocketException

from holdfast.local.servers import Valkey

SECONDS = 300
CLIENTS = 100
AUDIENCES = 200
TOPICS_EACH = 4


class Wanderer:
    """A client that is dropped at random and comes back to any gateway; checks each topic's stream as it comes."""

    def __init__(self, addresses: list[str], token: str, topics: list[str], chance: random.Random) -> None:
        self.addresses = addresses
        self.token = token
        self.topics = topics
        self.chance = chance
        self.positions: dict[str, str] = {}
        self.session: str | None = None
        self.faults: list[str] = []
        self.gaps: list[tuple[float, str]] = []
        self.recovered = 0
        self.updates = 0
        self.drops = 0

    async def wander(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            with suppress(OSError, WebSocketException, InvalidHandshake, TimeoutError):
                await self._stay(self.chance.choice(self.addresses), self.chance.uniform(0.5, 5.0), is_over)
            await asyncio.sleep(self.chance.uniform(0.01, 0.3))

    async def settle(self, address: str, tops: dict[str, str]) -> None:
        """Stay until every topic is where Redis says it is."""
        with suppress(TimeoutError):
            await self._stay(address, 30.0, lambda: self.positions == tops)

    async def _stay(self, address: str, seconds: float, is_over: Callable[[], bool]) -> None:
        hello = {"type": "hello", "v": 1, "token": self.token, "topics": self.topics, "positions": self.positions}
        if self.session is not None:
            hello["session"] = self.session
        ends_at = time.monotonic() + seconds
        connection = await connect(address, compression=None, open_timeout=5)
        try:
            await connection.send(json.dumps(hello))
            while not is_over() and time.monotonic() < ends_at:
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        self._take(json.loads(await connection.recv()))
        finally:
            self.drops += 1
            connection.transport.abort()

    def _take(self, frame: dict[str, Any]) -> None:
        kind = frame["type"]
        if kind == "welcome":
            self.session = frame["session"]
        elif kind == "error":
            self.faults.append(str(frame))
        if "pos" not in frame:
            return
        topic, pos = frame["topic"], frame["pos"]
        held = self.positions.get(topic)
        if kind == "update":
            self.updates += 1
            if held is None or follows(held) != pos:
                self.faults.append(f"{topic}: {pos} after {held}")
        elif kind == "gap":
            self.gaps.append((time.monotonic(), frame["reason"]))
        elif held is not None and held != pos:
            self.faults.append(f"{topic}: subscribed at {pos} after {held}")
        elif frame["recovered"]:
            self.recovered += 1
        self.positions[topic] = pos


def follows(pos: str) -> str:
    epoch, _, offset = pos.rpartition(":")
    return f"{epoch}:{int(offset) + 1}"


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_no_client_ever_has_a_silent_hole(
    own_valkey: Valkey,
    start_gateway: Callable[..., Any],
    tenant: Any,
    eventually: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = type(tenant)(own_valkey.url())
    gateways = [start_gateway(own_valkey.url()) for _ in range(3)]
    addresses = [gateway.live for gateway in gateways]
    chance = random.Random(20261124)
    topics = [f"audience:user-{n}" for n in range(AUDIENCES)]
    clients = [
        Wanderer(addresses, own.token(seconds=3600, sub=f"user-{n}"), chance.sample(topics, TOPICS_EACH), chance)
        for n in range(CLIENTS)
    ]
    ends_at = time.monotonic() + SECONDS
    is_over = threading.Event()
    kills, published, restarted_at = itertools.count(), itertools.count(), ends_at

    def publish() -> None:
        for version in itertools.count(1):
            if is_over.wait(0.01):
                return
            with suppress(RedisError):
                own.publish(version, audience=f"user-{version * 7 % AUDIENCES}")
                next(published)

    def kill_pubsub() -> None:
        while not is_over.wait(0.3):
            with suppress(RedisError):
                own.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                next(kills)

    def break_things() -> None:
        for at, thing in [(0.25, gateways[0].stop), (0.45, restart), (0.7, gateways[1].stop)]:
            is_over.wait(max(0.0, ends_at - SECONDS * (1 - at) - time.monotonic()))
            thing()

    def restart() -> None:
        nonlocal restarted_at
        restarted_at = time.monotonic()
        own_valkey.kill()
        own_valkey.start()

    threads = [threading.Thread(target=work) for work in (publish, kill_pubsub, break_things)]
    for thread in threads:
        thread.start()

    async def run() -> None:
        await asyncio.gather(*(client.wander(lambda: time.monotonic() > ends_at) for client in clients))
        is_over.set()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        await asyncio.to_thread(eventually, gateways[2].is_ready, message="the last gateway has recovered")
        await asyncio.gather(*(client.settle(addresses[2], tops(own, client.topics)) for client in clients))

    asyncio.run(run())

    gaps = [gap for client in clients for gap in client.gaps]
    drops, updates = sum(client.drops for client in clients), sum(client.updates for client in clients)
    killed = next(kills)
    with capsys.disabled():
        figures = {
            "updates published": next(published),
            "updates received": updates,
            "connections dropped": drops,
            "topics resumed without a hole": sum(client.recovered for client in clients),
            "times that all pub/sub connections were killed": killed,
            "gaps": len(gaps),
        }
        print(f"\n{SECONDS} s, {CLIENTS} clients, {AUDIENCES} topics: {figures}", file=sys.stderr)  # noqa: T201
    assert [fault for client in clients for fault in client.faults] == []
    assert all(client.positions == tops(own, client.topics) for client in clients)
    assert {reason for _, reason in gaps} <= {"epoch"}
    assert all(at > restarted_at for at, _ in gaps), "Redis was restarted; nothing else was lost"
    assert len(gaps) <= CLIENTS * TOPICS_EACH, "one restart, one gap a topic"
    assert drops > CLIENTS * 5
    assert updates > 1000
    assert killed > SECONDS
    own.redis.close()


def tops(own: Any, topics: list[str]) -> dict[str, str]:
    """Where each topic stands in Redis."""
    kept = {topic: own.redis.hgetall(f"live:meta:{own.name}:{topic}") for topic in topics}
    return {topic: f"{meta[b'epoch'].decode()}:{meta[b'offset'].decode()}" for topic, meta in kept.items()}
