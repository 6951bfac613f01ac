"""SIGTERM with many clients: told where to go, let go piece by piece, and nothing is lost on the way."""

import asyncio
import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from holdfast.gateway.clients import clients
from holdfast.local.servers import Valkey

CONNECTS_AT_ONCE = 25
UPDATES = 20
"""For each of them: few enough that the one loop with all the clients notes the closes as they come."""


class Watcher:
    """A client that goes to another gateway when it is told to, and keeps what it saw."""

    def __init__(self, hello: dict[str, Any], topic: str) -> None:
        self.hello = hello
        self.topic = topic
        self.offsets: list[int] = []
        self.gaps = 0
        self.reconnect_ms: int | None = None
        self.close_code: int | None = None
        self.is_live = asyncio.Event()

    async def watch(self, connection: ClientConnection, until: int) -> None:
        await connection.send(json.dumps(self.hello))
        try:
            while not self.offsets or self.offsets[-1] < until:
                frame = json.loads(await connection.recv())
                self.take(frame)
                if frame["type"] == "ping":
                    with contextlib.suppress(ConnectionClosed):  # what came before the close is still to be read
                        await connection.send('{"type":"pong"}')
        except ConnectionClosed:
            self.close_code = connection.close_code or 0

    def take(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "welcome":
            self.hello["session"] = frame["session"]
        if "pos" in frame:
            self.hello["positions"] = {self.topic: frame["pos"]}
        if frame["type"] == "update":
            self.offsets.append(int(frame["pos"].rpartition(":")[2]))
        elif frame["type"] == "reconnect":
            self.reconnect_ms = frame["after_ms"]
        elif frame["type"] == "gap":
            self.gaps += 1
        elif frame["type"] == "subscribed":
            self.is_live.set()


async def connected(address: str) -> ClientConnection:
    """Connect, again when sent away: on a busy machine a gateway may find Redis slow for a moment."""
    while True:
        try:
            return await connect(address, compression=None, open_timeout=60)
        except InvalidStatus as exc:
            await asyncio.sleep(float(exc.response.headers["Retry-After"]))


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.soak)])
def test_l20_sigterm_sends_every_client_elsewhere_and_loses_nothing(
    start_gateway: Callable[..., Any], gateway: Any, valkey: Valkey, tenant: Any, count: int
) -> None:
    leaving = start_gateway(valkey.url())
    hello = {"type": "hello", "v": 1, "token": tenant.token(seconds=600), "topics": [tenant.topic]}
    watchers = [Watcher(dict(hello), tenant.topic) for _ in range(count)]

    def publish() -> None:
        # Some while they are let go, and some when the process is gone: nobody is done before.
        tenant.publish(*range(1, UPDATES // 2))
        leaving.process.wait(60)
        tenant.publish(*range(UPDATES // 2, UPDATES + 1))

    publishing = threading.Thread(target=publish)

    async def run() -> None:
        slots = asyncio.Semaphore(CONNECTS_AT_ONCE)

        async def one(watcher: Watcher) -> None:
            async with slots:
                first = await connected(leaving.live)
            async with first:
                await watcher.watch(first, until=UPDATES)
            if watcher.close_code is not None:
                async with slots:
                    second = await connected(gateway.live)
                async with second:
                    await watcher.watch(second, until=UPDATES)

        watching = [asyncio.ensure_future(one(watcher)) for watcher in watchers]
        await asyncio.gather(*(watcher.is_live.wait() for watcher in watchers))
        publishing.start()
        leaving.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*watching)

    asyncio.run(asyncio.wait_for(run(), 150))
    publishing.join()

    assert leaving.process.wait(20) == 0
    assert {watcher.close_code for watcher in watchers} - {None} == {4001}
    assert all(watcher.reconnect_ms is not None for watcher in watchers if watcher.close_code is not None)
    assert all(watcher.offsets == list(range(1, UPDATES + 1)) and not watcher.gaps for watcher in watchers)
    waits = [watcher.reconnect_ms for watcher in watchers if watcher.reconnect_ms is not None]
    assert max(waits) - min(waits) > 100, "they do not all come back in the same moment"


def test_l20_the_closes_are_spread(
    serve: Callable[..., Any], join: Any, tenant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "DRAIN_SECONDS_PER_CONNECTION", 0.1)
    address = serve()
    watchers = [join(address, tenant.token(), tenant.topic) for _ in range(20)]

    def closed_at(watcher: Any) -> float:
        assert watcher.close_code() == 4001
        return time.monotonic()

    with ThreadPoolExecutor(len(watchers)) as threads:
        closes = [threads.submit(closed_at, watcher) for watcher in watchers]
        address.server.should_exit = True
        ended = sorted(each.result() for each in closes)

    assert ended[-1] - ended[0] > 1, "over two seconds, or near it"
