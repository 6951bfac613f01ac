"""The request and the trace that an event came with: kept with it, shown, and found by."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

pytestmark = pytest.mark.xdist_group("ingest-events")  # one process for all of them

Post = Callable[..., httpx.Response]
Get = Callable[..., httpx.Response]
Api = Callable[..., httpx.Response]
MakeEvent = Callable[..., dict[str, Any]]


def traceparent(trace_id: str, *, flags: str = "01") -> str:
    return f"00-{trace_id}-00f067aa0ba902b7-{flags}"


def ids_of(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["event_id"] for item in answer.json()["items"]]


def test_an_event_is_found_by_the_request_id_of_its_answer(
    post: Post, get: Get, api: Api, make_event: MakeEvent
) -> None:
    post(make_event())

    answer = post(make_event())

    event_id, request_id = answer.json()["event_id"], answer.headers["x-request-id"]
    assert get(event_id).json()["request_id"] == request_id
    assert ids_of(api("GET", "/v1/events", params={"request_id": request_id})) == [event_id]


def test_an_event_is_found_by_the_request_id_that_its_sender_chose(post: Post, api: Api, make_event: MakeEvent) -> None:
    chosen = f"order.{uuid4().hex}"

    event_id = post(make_event(), x_request_id=chosen).json()["event_id"]

    assert ids_of(api("GET", "/v1/events", params={"request_id": chosen})) == [event_id]


@pytest.mark.parametrize("flags", ["00", "01"])
def test_an_event_is_found_by_the_trace_of_its_request(
    post: Post, get: Get, api: Api, make_event: MakeEvent, flags: str
) -> None:
    trace_id = uuid4().hex

    event_id = post(make_event(), traceparent=traceparent(trace_id, flags=flags)).json()["event_id"]

    assert get(event_id).json()["trace_id"] == trace_id
    assert ids_of(api("GET", "/v1/events", params={"trace_id": trace_id.upper()})) == [event_id]


def test_an_event_without_a_traced_request_is_found_by_its_own_trace(
    post: Post, api: Api, make_event: MakeEvent
) -> None:
    trace_id = uuid4().hex

    event_id = post(make_event(traceparent=traceparent(trace_id))).json()["event_id"]

    assert ids_of(api("GET", "/v1/events", params={"trace_id": trace_id})) == [event_id]


def test_the_trace_of_the_request_comes_before_that_of_the_event(
    post: Post, get: Get, api: Api, make_event: MakeEvent
) -> None:
    of_event, of_request = uuid4().hex, uuid4().hex

    event_id = post(make_event(traceparent=traceparent(of_event)), traceparent=traceparent(of_request)).json()[
        "event_id"
    ]

    view = get(event_id).json()
    assert (view["trace_id"], view["event"]["traceparent"]) == (of_request, traceparent(of_event))
    assert ids_of(api("GET", "/v1/events", params={"trace_id": of_event})) == []


@pytest.mark.parametrize(
    "given", ["", "x", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", "ff-" + "1" * 32 + "-00f067aa0ba902b7-01", "0" * 5000]
)
def test_a_traceparent_that_is_none_is_as_if_there_were_none(
    post: Post, get: Get, make_event: MakeEvent, given: str
) -> None:
    answer = post(make_event(), traceparent=given)

    assert answer.status_code == 202
    assert get(answer.json()["event_id"]).json()["trace_id"] is None


def test_all_events_of_a_batch_are_found_by_its_request(ingest: Any, key: str, api: Api, make_event: MakeEvent) -> None:
    trace_id = uuid4().hex
    headers = {
        "Authorization": f"Bearer {key}", "Content-Type": "application/cloudevents-batch+json",
        "traceparent": traceparent(trace_id),
    }  # fmt: skip

    answer = httpx.post(f"{ingest.url}/v1/events", json=[make_event(), make_event()], headers=headers)

    sent = {each["event_id"] for each in answer.json()["events"]}  # of one millisecond: in no order
    assert set(ids_of(api("GET", "/v1/events", params={"request_id": answer.headers["x-request-id"]}))) == sent
    assert set(ids_of(api("GET", "/v1/events", params={"trace_id": trace_id}))) == sent


@pytest.mark.parametrize("wrong", ["4bf92f35", "g" * 32, "4bf92f3577b34da6a3ce929d0e0e4736 "])
def test_a_trace_id_that_is_none_is_told_with_what_one_is(api: Api, wrong: str) -> None:
    answer = api("GET", "/v1/events", params={"trace_id": wrong})

    [fault] = answer.json()["errors"]
    assert (answer.status_code, fault["parameter"], fault["received"]) == (400, "trace_id", repr(wrong))
    assert "32 hexadecimal digits" in fault["detail"]


def test_the_copy_of_a_replay_is_found_by_the_trace_and_not_by_the_request(
    put: Callable[..., str], api: Api, get: Get
) -> None:
    trace_id = uuid4().hex
    event_id = put("processed", traceparent=traceparent(trace_id))

    copy_id = api("POST", f"/v1/events/{event_id}/replay").json()["event_id"]

    assert ids_of(api("GET", "/v1/events", params={"trace_id": trace_id})) == [copy_id, event_id]
    assert get(copy_id).json()["request_id"] is None
