"""The lines of a whole stack: each parses and has its ids, and none has a payload, key, token or exception's text."""

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from tests.story.collector import Collector

from holdfast.client import Client, ClientError
from holdfast.local.fixtures import Eventually
from holdfast.local.process import log_lines
from holdfast.local.stack import Stack

pytestmark = [pytest.mark.xdist_group("story"), pytest.mark.timeout(300)]

Send = Callable[..., httpx.Response]

EVENT_IDS = {"event_id", "event_type", "tenant", "attempt", "handler", "request_id", "trace_id", "span_id"}

ENDS = {"event processed", "attempt failed", "event is dead"}

OWN = ENDS | {"flaky runs", "listed runs"}
"""What an attempt says of itself; a slow machine adds lines of another kind, such as that Redis is late."""


def lines_of(stack: Stack, *services: str) -> list[dict[str, Any]]:
    return [line for name in services or stack.services for line in log_lines(stack.logs / f"{name}.log")]


def test_every_line_of_an_attempt_has_the_ids_of_its_event(
    traced: Stack, client: Client, send: Send, eventually: Eventually
) -> None:
    trace_id = uuid4().hex
    answer = send("story.flaky", {"n": 1}, traceparent=f"00-{trace_id}-00f067aa0ba902b7-01")
    event_id = answer.json()["event_id"]
    client.wait(event_id, 60)
    listed_id = send("story.listed").json()["event_id"]
    client.wait(listed_id, 60)

    def lines(of: str) -> list[dict[str, Any]]:
        return [line for line in lines_of(traced, "processor") if line.get("event_id") == of]

    eventually(lambda: "event processed" in [line["message"] for line in lines(event_id)])
    eventually(lambda: "event processed" in [line["message"] for line in lines(listed_id)])
    for line in lines(event_id):
        assert line.keys() >= EVENT_IDS, line
        assert (line["trace_id"], line["request_id"]) == (trace_id, answer.headers["x-request-id"])
    found = [line for line in lines(event_id) if line["message"] in OWN]
    assert [line["message"] for line in found] == ["flaky runs", "attempt failed", "flaky runs", "event processed"]
    assert [line["attempt"] for line in found] == [1, 1, 2, 2]
    assert ["attempt_trace_id" in line for line in found] == [False, False, True, True]
    assert len({line["span_id"] for line in found}) == 2
    told = [line["message"] for line in lines(listed_id)]
    assert [message for message in told if message in OWN] == ["listed runs", "event processed"]


def test_every_line_of_a_request_has_its_ids(traced: Stack, send: Send, eventually: Eventually) -> None:
    trace_id = uuid4().hex
    answer = send("story.plain", traceparent=f"00-{trace_id}-00f067aa0ba902b7-01")
    request_id = answer.headers["x-request-id"]

    def lines() -> list[dict[str, Any]]:
        return [line for line in lines_of(traced, "ingest") if line.get("request_id") == request_id]

    eventually(lambda: "event accepted" in [line["message"] for line in lines()])
    for line in lines():
        assert (line["trace_id"], line["tenant"], len(line["span_id"])) == (trace_id, "demo", 16)
    [line] = [line for line in lines() if line["message"] == "event accepted"]
    assert (line["level"], line["event_id"]) == ("debug", answer.json()["event_id"])
    assert line["event_type"] == "story.plain"


def test_no_line_and_no_span_has_a_payload_key_token_or_text_of_an_exception(
    traced: Stack, client: Client, kept: Collector, send: Send, eventually: Eventually
) -> None:
    payload, key, token = (f"marker{uuid4().hex}" for _ in range(3))
    sent = [
        send(type_, {"name": payload}).json()["event_id"]
        for type_ in ("story.flaky", "story.plain", "story.wrong", "story.rejected", "story.listed", "story.unserved")
    ]
    for each in sent:
        client.wait(each, 60)
    minted = client.token(["tenant:demo"]).token
    gateway = traced.live_url.replace("ws:", "http:")
    bodies = (f'{{"name": "{payload}', f'["{payload}"]', json.dumps({"specversion": payload, "data": payload}))
    for body in bodies:
        for named in (f"Bearer {traced.api_key}", f"Bearer hf_{key}_{key}", f"Basic {key}"):
            headers = {"Authorization": named, "Content-Type": "application/cloudevents+json"}
            assert httpx.post(f"{traced.ingest_url}/v1/events", content=body, headers=headers).is_client_error
    httpx.get(f"{traced.ingest_url}/{payload}?{payload}", headers={"x-request-id": f"{payload} {payload}"})
    for given in (minted[:-4] + "AAAA", token):
        assert httpx.get(f"{gateway}/sse", headers={"Authorization": f"Bearer {given}"}).is_client_error
    with httpx.stream(
        "GET", f"{gateway}/sse?topic=tenant:demo", headers={"Authorization": f"Bearer {minted}"}
    ) as stream:
        assert stream.status_code == 200, stream.read()
    with pytest.raises(ClientError):
        client.replay(str(uuid4()))

    def is_told() -> bool:
        dead = {line["event_id"] for line in lines_of(traced, "processor") if line["message"] == "event is dead"}
        return {sent[2], sent[3], sent[5]} <= dead

    eventually(is_told)
    eventually(lambda: "client disconnected" in [line["message"] for line in lines_of(traced, "ws-gateway")])
    secrets = [payload, key, token, minted, minted.split(".")[2], traced.api_key.split("_", 2)[2]]
    for name in traced.services:
        text = (traced.logs / f"{name}.log").read_text()
        assert not [secret for secret in secrets if secret in text], name
        assert "cannot charge" not in text, name
    for exported in kept.bodies:
        assert not [secret for secret in [*secrets, "cannot charge"] if secret.encode() in exported]
    for line in lines_of(traced):
        assert line.keys() >= {"timestamp", "level", "message", "logger", "service.name", "service.version"}, line
        if line["message"] in ENDS:
            assert line.keys() >= EVENT_IDS, line
