"""Golden examples, and the two ends of every wire: a real ingest and a real gateway, without a processor between them."""

import asyncio
import contextlib
import json
import secrets
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from websockets.asyncio.server import ServerConnection, serve

from holdfast import client
from holdfast.client import Client, watch
from holdfast.gateway.protocol.frames import Status
from holdfast.local.fixtures import Eventually, clone_template
from holdfast.local.servers import Postgres, Valkey, free_port
from holdfast.local.services import environment
from holdfast.messaging.contracts import FOLDER
from holdfast.storage.database import Database
from holdfast.storage.keys import create_key

TENANT = "acme"


class Edges:
    """Ingest and gateway as processes, on a database and a Redis of their own."""

    def __init__(self, postgres: Postgres, valkey: Valkey, folder: Path) -> None:
        self.database_url = postgres.url(clone_template(postgres))
        self.redis_url = valkey.url()
        self.secret = secrets.token_hex(32)
        self.redis = redis.Redis.from_url(self.redis_url)
        ingest, gateway = free_port(), free_port()
        self.ingest_url, self.gateway_url = f"http://127.0.0.1:{ingest}", f"http://127.0.0.1:{gateway}"
        self.live_url = f"ws://127.0.0.1:{gateway}/v1/live"
        self.settings = {
            "HOLDFAST_DATABASE_URL": self.database_url, "HOLDFAST_BROKER_URL": self.redis_url,
            "HOLDFAST_REDIS_URL": self.redis_url, "HOLDFAST_LIVE_TOKEN_SECRET": self.secret,
            "HOLDFAST_INGEST_PORT": str(ingest), "HOLDFAST_GATEWAY_PORT": str(gateway),
        }  # fmt: skip
        self._folder = folder
        database = Database(self.database_url, application_name="test", pool_size=1)
        with database.transaction() as session:
            self.api_key = create_key(session, tenant=TENANT, name="test")
        database.close()

    def start(self, module: str) -> "subprocess.Popen[bytes]":
        with (self._folder / f"{module}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module], env=environment(self.settings), stdout=log, stderr=log
            )

    def run(self, program: str) -> Any:
        """What a Python program prints as JSON in its last line, after its log, run with these settings."""
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment(self.settings), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def edges(postgres: Postgres, server_folder: Path, eventually: Eventually) -> Iterator[Edges]:
    """See :class:`Edges`. For all tests: each uses event ids of its own."""
    folder = server_folder / "contract"
    valkey = Valkey(folder)
    valkey.start()
    edges = Edges(postgres, valkey, folder)
    processes = [edges.start("holdfast.ingest"), edges.start("holdfast.gateway")]
    try:
        for url in (edges.ingest_url, edges.gateway_url):
            eventually(lambda url=url: is_ready(url), timeout_seconds=30, message=f"{url} is ready")  # type: ignore[misc]
        yield edges
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
        edges.redis.close()
        valkey.stop()


def is_ready(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/readyz", timeout=2) as answer:  # noqa: S310
        return bool(answer.status == 200)
    return False


@pytest.fixture(name="client")
def _client(edges: Edges) -> Iterator[Client]:
    with Client(edges.ingest_url, edges.api_key) as made:
        yield made


class Watched:
    """What a client said to a gateway, and what it told its caller."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.told: list[Any] = []


@pytest.fixture
def watched() -> Callable[..., Watched]:
    """Run the client's ``watch`` against a WebSocket that says the given frames; a last ``status`` ends it."""

    def run(frames: list[bytes], *topics: str, **options: Any) -> Watched:
        seen = Watched()

        async def say(connection: ServerConnection) -> None:
            seen.sent.append(str(await connection.recv()))
            for frame in [*frames, Status(state="ok").encode()]:
                await connection.send(frame.decode())
            async for text in connection:
                seen.sent.append(str(text))

        async def watch_until_ok() -> None:
            async with asyncio.timeout(10), serve(say, "127.0.0.1", 0) as server:
                url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
                async with contextlib.aclosing(watch(url, "a.live.token", topics=topics, **options)) as told:
                    async for frame in told:
                        if frame == client.Status("ok"):
                            return
                        seen.told.append(frame)

        asyncio.run(watch_until_ok())
        return seen

    return run


@pytest.fixture
def golden() -> Callable[[str], dict[str, Any]]:
    """An example by the name of its contract, written by hand."""

    def read(name: str) -> dict[str, Any]:
        example: dict[str, Any] = json.loads((FOLDER / "golden" / f"{name}.json").read_text())
        return example

    return read
