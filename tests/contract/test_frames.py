"""The live protocol: what the gateway sends against its models, what the Python client sends against the gateway's parser."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel
from websockets.sync.client import ClientConnection, connect

from holdfast.client import Client, Gap, Status, Subscribed
from holdfast.gateway.protocol.codec import parse_client_frame
from holdfast.gateway.protocol.frames import LIMITS, SERVER_FRAMES, Hello, Pong

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


def test_the_client_s_hello_is_read_by_the_gateway(watched: Any) -> None:
    seen = watched([], TOPIC, "tenant:acme", positions={TOPIC: "a1-9:41"})

    [hello] = seen.sent
    read = parse_client_frame(hello, limit_bytes=LIMITS.frame_bytes)
    assert isinstance(read, Hello)
    assert (read.token, read.topics, read.positions) == ("a.live.token", [TOPIC, "tenant:acme"], {TOPIC: "a1-9:41"})
    assert strangers(json.loads(hello), Hello) == set()


def test_the_client_s_pong_is_read_by_the_gateway(watched: Any) -> None:
    seen = watched([SERVER_FRAMES["ping"]().encode()], TOPIC)

    [_, pong] = seen.sent
    assert isinstance(parse_client_frame(pong, limit_bytes=LIMITS.frame_bytes), Pong)


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
def test_the_client_reads_what_the_gateway_s_models_make(values: dict[str, Any], read: Any, watched: Any) -> None:
    frame = SERVER_FRAMES[values["type"]].model_validate_json(json.dumps(values)).encode()

    assert watched([frame], TOPIC).told == ([read] if read else [])
