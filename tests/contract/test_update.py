"""The update: published by every service with a database, framed by the gateway, read by clients."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from holdfast.client import Client, Subscribed, UpdateReceived, watch
from holdfast.domain.state import State
from holdfast.domain.update import Update
from holdfast.gateway.protocol import frames as protocol
from holdfast.gateway.protocol.codec import update_frame, update_prefix
from holdfast.local.fixtures import Eventually
from holdfast.messaging.connect import redis_client
from holdfast.messaging.contracts import UpdateV1, encode_update
from holdfast.messaging.live import Publisher, topic_keys

pytestmark = pytest.mark.xdist_group("contract")

Golden = Callable[[str], dict[str, Any]]


def as_update(body: dict[str, Any], **fields: Any) -> Update:
    """The domain's update that says what the body says."""
    values = {
        "event_id": UUID(body["id"]), "tenant": "acme", "type": body["type"], "audience": None,
        "state": State(body["state"]), "version": body["version"], "step": body["step"], "attempt": body["attempt"],
        "at": datetime.fromisoformat(body["at"]), "detail": body["detail"],
    }  # fmt: skip
    return Update(**(values | fields))


def test_the_golden_update_is_what_publishing_makes(golden: Golden) -> None:
    body = encode_update(as_update(golden("update.v1")))

    assert json.loads(body) == golden("update.v1")
    assert body == json.dumps(golden("update.v1"), separators=(",", ":")), "compact, and in the contract's order"


@pytest.mark.parametrize("type_", ['a "b" \\c', "ü\u2028😀", "tab\t\x7f"])
@pytest.mark.parametrize("detail", [{}, {"result": {"n": [1.5, None], "text": 'ü "'}}])
def test_an_update_is_compact_json_whatever_its_texts(
    golden: Golden, type_: str, detail: dict[str, Any]
) -> None:  # fmt: skip
    body = golden("update.v1") | {"type": type_, "detail": detail}

    assert encode_update(as_update(body)) == json.dumps(body, separators=(",", ":"), ensure_ascii=False)


def test_the_gateway_frames_the_golden_update_as_its_model_says(golden: Golden) -> None:
    frame = update_frame(update_prefix("event:é"), "a1-9", 41, encode_update(as_update(golden("update.v1"))).encode())

    parsed = protocol.Update.model_validate_json(frame.payload)

    assert (parsed.topic, parsed.pos) == ("event:é", "a1-9:41")
    assert parsed.event == UpdateV1.model_validate(golden("update.v1"))
    assert set(json.loads(frame.payload)) == set(protocol.Update.model_fields)


def test_the_python_client_reads_the_gateway_s_frame_of_the_golden_update(golden: Golden, watched: Any) -> None:
    body = encode_update(as_update(golden("update.v1"))).encode()

    seen = watched([update_frame(update_prefix("tenant:acme"), "a1-9", 41, body).payload], "tenant:acme")

    assert seen.told == [UpdateReceived("tenant:acme", "a1-9:41", golden("update.v1"))]


def test_the_client_counts_versions_and_steps_as_the_contract_says(golden: Golden, watched: Any) -> None:
    order = [(1, 0), (2, 0), (2, 1), (2, 1), (1, 0), (2, 0), (2, 2), (3, 0)]
    updates = [as_update(golden("update.v1") | {"version": version, "step": step}) for version, step in order]
    frames = [
        update_frame(update_prefix("tenant:acme"), "e", offset, encode_update(update).encode()).payload
        for offset, update in enumerate(updates, start=1)
    ]

    seen = watched(frames, "tenant:acme")

    told = [(frame.event["version"], frame.event["step"]) for frame in seen.told]
    assert told == [(1, 0), (2, 0), (2, 1), (2, 2), (3, 0)]


def test_what_ingest_publishes_is_the_contract(edges: Any, client: Client, eventually: Eventually) -> None:
    sent = client.send({"type": "com.acme.test", "data": {}})
    stream = topic_keys("acme", f"event:{sent.event_id}").stream
    [(_, fields)] = eventually(lambda: edges.redis.xrange(stream), message="ingest published")

    body = json.loads(fields[b"u"])

    update = UpdateV1.model_validate(body)
    assert set(body) == set(UpdateV1.model_fields)
    assert (str(update.id), update.state, update.version, update.type) == (sent.event_id, "queued", 1, "com.acme.test")


@pytest.mark.parametrize(
    "detail", [{}, {"result": {"a": [1, None, 'ü\n"x"']}}, {"progress": {"fraction": 0.5, "message": None}}]
)
def test_an_update_arrives_at_a_client_as_it_was_published(
    edges: Any, golden: Golden, client: Client, detail: dict[str, Any]
) -> None:
    body = golden("update.v1") | {"id": str(uuid4()), "detail": detail}
    topic = f"event:{body['id']}"
    redis = redis_client(edges.redis_url, timeout_seconds=2)
    publisher = Publisher(redis, window_seconds=600, window_updates=100)

    async def receive() -> UpdateReceived:
        async with asyncio.timeout(20), contextlib.aclosing(watch(edges.live_url, token, topics=[topic])) as frames:
            async for frame in frames:
                if isinstance(frame, Subscribed):
                    await asyncio.to_thread(publisher.publish, [as_update(body)])
                elif isinstance(frame, UpdateReceived):
                    return frame
        raise AssertionError("the watch ended")

    token = client.token([topic]).token
    received = asyncio.run(receive())

    redis.close()
    assert (received.topic, received.event) == (topic, body)
