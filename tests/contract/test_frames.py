"""The live protocol: what the gateway sends against its models, what the Python client sends against the gateway's parser."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.sync.client import ClientConnection, connect

from holdfast.client import Client, watch
from holdfast.client.live import Gap, Status, Subscribed, _Watch
from holdfast.gateway.codec import parse_client_frame
from holdfast.gateway.protocol import LIMITS, SERVER_FRAMES, Hello, Pong

pytestmark = pytest.mark.xdist_group("contract")

TOPIC = "audience:user-1"


@pytest.fixture
def live(edges: Any) -> Iterator[ClientConnection]:
    with connect(edges.live_url, compression=None) as connection:
        yield connection


def take(connection: ClientConnection) -> dict[str, Any]:
    frame: dict[str, Any] = json.loads(connection.recv(timeout=10))
    return frame


def strangers(value: Any, model: type[BaseModel]) -> set[str]:
    """Fields of a frame that its model does not know."""
    return set(value) - set(model.model_fields)


def test_every_frame_of_a_conversation_is_as_its_model_says(client: Client, live: ClientConnection) -> None:
    topic = f"audience:{uuid4().hex}"
    token = client.token([topic]).token
    frames = []
    hello = {"type": "hello", "v": 1, "token": token, "topics": [topic], "positions": {topic: "older:7"}}
    live.send(json.dumps(hello))
    frames += [take(live) for _ in range(3)]
    client.send({"type": "com.acme.test", "audience": topic.partition(":")[2]})
    frames.append(take(live))
    live.send(json.dumps({"type": "subscribe", "id": 1, "topics": [{"topic": "tenant:other"}]}))
    frames.append(take(live))
    live.send(json.dumps({"type": "subscribe", "id": "a", "topics": [{"topic": topic}]}))
    frames.append(take(live))

    kinds = [frame["type"] for frame in frames]

    assert kinds == ["welcome", "gap", "subscribed", "update", "error", "subscribed"]
    for frame in frames:
        model = SERVER_FRAMES[frame["type"]]
        model.model_validate_json(json.dumps(frame))
        assert strangers(frame, model) == set()
        required = {name for name in model.model_fields if name not in model.OPTIONAL}
        assert required <= set(frame), "a client may rely on every field that is not optional"


def test_the_client_s_hello_is_read_by_the_gateway() -> None:
    hello = _Watch([TOPIC, "tenant:acme"], {TOPIC: "a1-9:41"}).hello("a.live.token")

    read = parse_client_frame(hello, limit_bytes=LIMITS.frame_bytes)

    assert isinstance(read, Hello)
    assert (read.token, read.topics, read.positions) == ("a.live.token", [TOPIC, "tenant:acme"], {TOPIC: "a1-9:41"})
    assert strangers(json.loads(hello), Hello) == set()


def test_the_client_s_pong_is_read_by_the_gateway() -> None:
    sent: list[str] = []

    async def serve(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(SERVER_FRAMES["ping"]().encode().decode())
        sent.append(str(await connection.recv()))
        await connection.send(json.dumps({"type": "status", "state": "ok"}))
        await connection.wait_closed()

    async def watch_once() -> None:
        async with serve_websocket(serve, "127.0.0.1", 0) as server, asyncio.timeout(10):
            port = server.sockets[0].getsockname()[1]
            async with contextlib.aclosing(watch(f"ws://127.0.0.1:{port}", "a.live.token", topics=[TOPIC])) as frames:
                assert await anext(frames) == Status("ok")

    asyncio.run(watch_once())

    assert [type(parse_client_frame(text, limit_bytes=LIMITS.frame_bytes)) for text in sent] == [Pong]


@pytest.mark.parametrize(
    ("values", "read"),
    [
        ({"type": "subscribed", "topic": TOPIC, "pos": "e:3", "recovered": None}, Subscribed(TOPIC, "e:3", None)),
        ({"type": "subscribed", "topic": TOPIC, "pos": "e:3", "recovered": True}, Subscribed(TOPIC, "e:3", True)),
        ({"type": "gap", "topic": TOPIC, "pos": "e:3", "reason": "epoch", "jitter_ms": 5}, Gap(TOPIC, "e:3", "epoch")),
        ({"type": "status", "state": "degraded"}, Status("degraded")),
        ({"type": "reconnect", "after_ms": 5}, None),
    ],
)
def test_the_client_reads_what_the_gateway_s_models_make(values: dict[str, Any], read: Any) -> None:
    frame = json.loads(SERVER_FRAMES[values["type"]].model_validate_json(json.dumps(values)).encode())

    assert _Watch([TOPIC], {})._read(frame) == read
