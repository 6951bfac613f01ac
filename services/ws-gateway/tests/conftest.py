"""Real gateways, as processes or (with limits that a test can wait for) in a thread, and a client that reads frames."""

import contextlib
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode
from uuid import UUID, uuid4

import jwt
import pytest
import redis
from pydantic import SecretStr
from tests.contract.asyncapi import AsyncApi
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from holdfast.domain.errors import LiveWindowUnavailable
from holdfast.domain.revocation import Revocation, RevocationKind
from holdfast.domain.state import State
from holdfast.domain.update import Update
from holdfast.gateway.app import Gateway
from holdfast.gateway.protocol.frames import CLIENT_FRAMES, LIMITS, SERVER_FRAMES, Limits
from holdfast.gateway.transports.server import LiveServer, config
from holdfast.local.servers import Valkey, free_port
from holdfast.messaging.live import Publisher
from holdfast.messaging.revocations import RevocationCopy
from holdfast.runtime.background import Repeater
from holdfast.runtime.settings import GatewaySettings

SECRET = "a-secret-that-only-these-tests-know"


class Captured:
    """Every frame that passed through a test's :class:`LiveClient`s, both ways. All of them are checked, in every test."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.received: list[dict[str, Any]] = []

    def validate(self, document: AsyncApi) -> None:
        """Hold each frame against the published document, down to the last field; those of no type are wrong on purpose."""
        for frame in self.received:
            assert frame["type"] in SERVER_FRAMES, frame
            document.validate(frame)
        for frame in self.sent:
            if frame["type"] in CLIENT_FRAMES:
                document.validate(frame)


class Address:
    """Where a gateway is; ``server`` when it runs in this process."""

    def __init__(self, port: int, server: LiveServer | None = None) -> None:
        self.server = server
        self.http = f"http://127.0.0.1:{port}"
        self.live = f"ws://127.0.0.1:{port}/v1/live"


class GatewayProcess(Address):
    """``python -m holdfast.gateway``."""

    def __init__(self, redis_url: str, log: Path, **settings: str) -> None:
        port, metrics_port = free_port(), free_port()
        super().__init__(port)
        self.metrics = f"http://127.0.0.1:{metrics_port}"
        self.log = log
        environment = {
            "HOLDFAST_REDIS_URL": redis_url,
            "HOLDFAST_GATEWAY_PORT": str(port),
            "HOLDFAST_METRICS_PORT": str(metrics_port),
            "HOLDFAST_LIVE_TOKEN_SECRET": SECRET,
            **settings,
        }
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "holdfast.gateway"], env=os.environ | environment, stdout=output, stderr=output
            )

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.http}/readyz", timeout=2) as answer:  # noqa: S310
            return bool(answer.status == 200)
        return False

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)


class LiveClient:
    """One WebSocket. Reads with a deadline; a missing frame fails the test with what came instead."""

    def __init__(self, connection: ClientConnection, captured: Captured) -> None:
        self.connection = connection
        self.captured = captured
        self.session = ""

    def send(self, **frame: Any) -> None:
        self.captured.sent.append(frame)
        self.connection.send(json.dumps(frame))

    def receive(self, *, timeout_seconds: float = 10.0) -> dict[str, Any]:
        frame: dict[str, Any] = json.loads(self.connection.recv(timeout=timeout_seconds))
        self.captured.received.append(frame)
        return frame

    def take(self, kind: str, *, timeout_seconds: float = 10.0) -> dict[str, Any]:
        """The next frame, which has to be of this type. Aside from pings, which are answered, and from what the gateway says
        of Redis, which on a busy machine it may find slow at any time.
        """
        frame = self.receive(timeout_seconds=timeout_seconds)
        while frame["type"] in {"ping", "status"} - {kind}:
            if frame["type"] == "ping":
                with contextlib.suppress(ConnectionClosed):  # what came before the close is still to be read
                    self.send(type="pong")
            frame = self.receive(timeout_seconds=timeout_seconds)
        assert frame["type"] == kind, frame
        return frame

    def take_updates(self, count: int) -> list[dict[str, Any]]:
        return [self.take("update") for _ in range(count)]

    def take_until(self, is_last: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Every frame up to one that is the last."""
        frames = [self.receive()]
        while not is_last(frames[-1]):
            frames.append(self.receive())
        return frames

    def drop(self) -> None:
        """Cut the connection without a goodbye, as a network does."""
        sock = self.connection.socket
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # The library's reader holds the socket too; a shutdown wakes it, and the lingering close then resets.
        sock.shutdown(socket.SHUT_RDWR)
        sock.close()

    def frames_until_close(self, *, timeout_seconds: float = 10.0) -> list[dict[str, Any]]:
        """Whatever still comes before the gateway closes."""
        deadline = time.monotonic() + timeout_seconds
        frames = []
        with contextlib.suppress(ConnectionClosed):
            while time.monotonic() < deadline:
                frames.append(self.receive(timeout_seconds=max(0.01, deadline - time.monotonic())))
        assert self.connection.close_code is not None, "the gateway did not close the connection"
        return frames

    def close_code(self, *, timeout_seconds: float = 10.0) -> int:
        """Read whatever still comes; return the code with which the gateway closes."""
        self.frames_until_close(timeout_seconds=timeout_seconds)
        return int(self.connection.close_code or 0)


class StreamClient:
    """One event stream, read as the standard says."""

    def __init__(self, address: Address, path: str, headers: dict[str, str], document: AsyncApi) -> None:
        self.document = document
        host, _, port = address.http.removeprefix("http://").partition(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=10)
        self.connection.request("GET", path, headers={"Accept": "text/event-stream", **headers})
        self.response = self.connection.getresponse()
        self.last_event_id = ""
        self.comments = 0
        self.retry_ms: int | None = None

    def receive(self) -> dict[str, Any]:
        """The data of the next event; ``EOFError`` at the end of the stream."""
        kind, data = "message", ""
        while line := self.response.readline():
            field, _, value = line.decode().rstrip("\n").partition(": ")
            if field == "event":
                kind = value
            elif field == "data":
                data += value
            elif field == "id":
                self.last_event_id = value
            elif field == "retry":
                self.retry_ms = int(value)
            elif line.startswith(b":"):
                self.comments += 1
            elif line == b"\n" and data:
                frame: dict[str, Any] = json.loads(data)
                assert frame["type"] == kind
                self.document.validate(frame)
                return frame
        raise EOFError

    def take(self, kind: str) -> dict[str, Any]:
        """The next event, which has to be of this name."""
        frame = self.receive()
        assert frame["type"] == kind, frame
        return frame

    def take_updates(self, count: int) -> list[dict[str, Any]]:
        return [self.take("update") for _ in range(count)]

    def close(self) -> None:
        self.response.close()
        self.connection.close()


class Tenant:
    """A tenant that no other test has: its tokens, its updates."""

    def __init__(self, redis_url: str) -> None:
        self.name = f"tenant-{uuid4().hex}"
        self.topic = f"tenant:{self.name}"
        self.redis = redis.Redis.from_url(redis_url)
        self._publisher = Publisher(self.redis, window_seconds=600, window_updates=1000)

    def token(self, *topics: str, seconds: float = 60, **claims: Any) -> str:
        now = time.time()
        standard = {"aud": "holdfast-live", "sub": "user-1", "tenant": self.name, "iat": int(now), "jti": uuid4().hex}
        granted = list(topics) or ["event:*", "audience:*", "tenant:*"]
        return jwt.encode(standard | {"exp": int(now + seconds), "topics": granted} | claims, SECRET, algorithm="HS256")

    def update(self, version: int, *, event_id: UUID | None = None, **fields: Any) -> Update:
        values = {
            "type": "com.acme.test",
            "audience": None,
            "state": State.QUEUED,
            "attempt": 0,
            "at": datetime.now(UTC),
        }
        return Update(event_id=event_id or uuid4(), tenant=self.name, version=version, **(values | fields))

    def publish(self, *versions: int, **fields: Any) -> None:
        self._publisher.publish([self.update(version, **fields) for version in versions])

    def revoke(self, *, jti: str | None = None, sub: str | None = None) -> None:
        """As ingest does after it has recorded it."""
        kind = RevocationKind.SUBJECT if jti is None else RevocationKind.TOKEN
        now, name = self.redis.time()[0], jti or sub or ""
        revocation = Revocation(seq=0, tenant=self.name, kind=kind, name=name, second=now)
        assert RevocationCopy(self.redis).add(revocation)

    def publish_updates(self, *updates: Update) -> None:
        self._publisher.publish(updates)


OpenStream = Callable[..., StreamClient]


class Join(Protocol):
    """See the fixture ``join``."""

    def __call__(self, address: Address, token: str | None = None, *topics: str, **hello: Any) -> LiveClient: ...


@pytest.fixture
def tenant(valkey: Valkey) -> Iterator[Tenant]:
    made = Tenant(valkey.url())
    yield made
    made.redis.close()


@pytest.fixture
def other_tenant(valkey: Valkey) -> Iterator[Tenant]:
    made = Tenant(valkey.url())
    yield made
    made.redis.close()


@pytest.fixture(scope="session")
def tend_revocations() -> Iterator[Callable[[str], None]]:
    """Keep a Redis's copy of the revocations complete, as maintenance does, for a database that has none."""
    with contextlib.ExitStack() as running:
        tended: set[str] = set()

        def tend(redis_url: str) -> None:
            if redis_url in tended:
                return
            tended.add(redis_url)
            client = running.enter_context(redis.Redis.from_url(redis_url, socket_timeout=1))
            copy = RevocationCopy(client)

            def look() -> None:
                with contextlib.suppress(LiveWindowUnavailable):
                    copy.bring_up_to(0, lambda _: [])

            look()
            repeater = Repeater("revocations", look, interval_seconds=0.1)
            repeater.start()
            running.callback(repeater.stop)

        yield tend


@pytest.fixture(scope="session")
def gateway(
    valkey: Valkey, server_folder: Path, eventually: Callable[..., Any], tend_revocations: Callable[[str], None]
) -> Iterator[GatewayProcess]:
    """One process for all tests that leave it as it is."""
    tend_revocations(valkey.url())
    process = GatewayProcess(valkey.url(), server_folder / "gateway.log")
    eventually(process.is_ready, message="the gateway is ready")
    yield process
    process.stop()


@pytest.fixture
def start_gateway(
    tmp_path: Path, eventually: Callable[..., Any], tend_revocations: Callable[[str], None]
) -> Iterator[Callable[..., GatewayProcess]]:
    """Start a process of the test's own."""
    with contextlib.ExitStack() as running:

        def start(redis_url: str, **settings: str) -> GatewayProcess:
            tend_revocations(redis_url)
            process = GatewayProcess(redis_url, tmp_path / f"gateway-{uuid4().hex}.log", **settings)
            running.callback(process.stop)
            eventually(process.is_ready, message="the gateway is ready")
            return process

        yield start


@pytest.fixture
def serve(
    valkey: Valkey, eventually: Callable[..., Any], tend_revocations: Callable[[str], None]
) -> Iterator[Callable[..., Address]]:
    """Run a gateway in a thread, with limits that a test can wait for; without ``is_tended`` nobody copies revocations."""
    with contextlib.ExitStack() as running:

        def start(
            limits: Limits = LIMITS, *, linger_seconds: float = 5.0, is_tended: bool = True, **settings: Any
        ) -> Address:
            values = {"redis_url": SecretStr(valkey.url()), "live_token_secret": SecretStr(SECRET)} | settings
            if is_tended:
                tend_revocations(values["redis_url"].get_secret_value())
            made = Gateway(GatewaySettings(**values), limits=limits, linger_seconds=linger_seconds)
            server = LiveServer(config(made.app, host="127.0.0.1", port=0), made.clients)
            thread = threading.Thread(target=server.run)
            thread.start()
            running.callback(thread.join, 20)
            running.callback(server.handle_exit, signal.SIGTERM, None)
            eventually(lambda: server.started, message="the gateway serves")
            return Address(server.servers[0].sockets[0].getsockname()[1], server)

        yield start


@pytest.fixture(scope="session")
def asyncapi() -> AsyncApi:
    """The published document, which every frame is held against."""
    return AsyncApi()


@pytest.fixture
def captured(asyncapi: AsyncApi) -> Iterator[Captured]:
    """What this test's clients said and were told; valid, whatever else the test is about."""
    frames = Captured()
    yield frames
    frames.validate(asyncapi)


@pytest.fixture
def open_live(captured: Captured) -> Iterator[Callable[..., LiveClient]]:
    """Open a WebSocket and say nothing."""
    with contextlib.ExitStack() as opened:

        def open_one(address: Address, **options: Any) -> LiveClient:
            # A client that never reads would not see the answer to its close either.
            options = {"compression": None, "close_timeout": 1} | options
            return LiveClient(opened.enter_context(connect(address.live, **options)), captured)

        yield open_one


@pytest.fixture
def open_stream(asyncapi: AsyncApi) -> Iterator[OpenStream]:
    """GET an event stream; with a token in the header, or with whatever else the query has."""
    with contextlib.ExitStack() as opened:

        def open_one(
            address: Address,
            *topics: str,
            token: str = "",
            last_event_id: str = "",
            query: dict[str, str] | list[tuple[str, str]] | None = None,
        ) -> StreamClient:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            if last_event_id:
                headers["Last-Event-ID"] = last_event_id
            named = query.items() if isinstance(query, dict) else query or []
            path = f"/v1/live/sse?{urlencode([*([('topics', ','.join(topics))] if topics else []), *named])}"
            client = StreamClient(address, path, headers, asyncapi)
            opened.callback(client.close)
            return client

        yield open_one


@pytest.fixture
def join(open_live: Callable[..., LiveClient]) -> Join:
    """Open a WebSocket, say hello and take the welcome."""

    def join_one(address: Address, token: str | None = None, *topics: str, **hello: Any) -> LiveClient:
        client = open_live(address)
        client.send(type="hello", v=1, token=token, topics=list(topics), **hello)
        client.session = client.take("welcome")["session"]
        return client

    return join_one


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A Valkey that the test may stop, kill or pause."""
    server = Valkey(tmp_path / "valkey")
    server.start()
    yield server
    server.stop()
