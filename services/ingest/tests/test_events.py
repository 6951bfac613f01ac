"""Accepting events: what is recorded, told and rung, and what the same event again is answered with."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import redis
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent as CloudEvent2
from cloudevents.v1.conversion import to_binary, to_structured
from cloudevents.v1.http import CloudEvent as CloudEvent1

from holdfast.messaging.live import open_publisher, topic_keys

pytestmark = pytest.mark.xdist_group("ingest-events")  # one process for all of them

Post = Callable[..., httpx.Response]
Get = Callable[..., httpx.Response]
MakeEvent = Callable[..., dict[str, Any]]


def binary(ingest: Any, key: str, body: bytes, **headers: str | bytes) -> httpx.Response:
    """POST in binary mode; header names are given with underscores, values as text or as raw bytes."""
    sent: dict[str, str | bytes] = {
        "Authorization": f"Bearer {key}", "ce-specversion": "1.0", "ce-id": uuid4().hex, "ce-source": "/test",
        "ce-type": "test.done",
    }  # fmt: skip
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    raw = [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in sent.items()]
    return httpx.post(f"{ingest.url}/v1/events", content=body, headers=raw)


def test_an_accepted_event_says_where_it_is(post: Post, make_event: MakeEvent) -> None:
    event = make_event()

    answer = post(event)

    body = answer.json()
    assert answer.status_code == 202
    assert body | {"event_id": "", "links": {}} == {
        "id": event["id"], "source": "/test", "event_id": "", "state": "queued", "version": 1, "duplicate": False,
        "enqueued": True, "links": {},
    }  # fmt: skip
    assert answer.headers["Location"] == body["links"]["self"] == f"/v1/events/{body['event_id']}"
    assert UUID(body["event_id"]).version == 7
    assert not any(name.lower().startswith("ce-") for name in answer.headers)


def test_every_attribute_comes_back(post: Post, get: Get, make_event: MakeEvent) -> None:
    event = make_event(
        subject="Bestellung 7 ü", time="2026-11-24T10:30:00.5+01:00", datacontenttype="application/json",
        dataschema="https://example.com/schema", audience="user-42", comexamplecount=7, comexampleflag=True,
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )  # fmt: skip
    event_id = post(event).json()["event_id"]

    view = get(event_id, "data").json()

    assert view["event"] == event | {"time": "2026-11-24T09:30:00.500000Z"}
    assert (view["state"], view["version"], view["attempt"]) == ("queued", 1, 0)


def test_an_event_is_sent_for_later(post: Post, get: Get, make_event: MakeEvent) -> None:
    event = make_event(deliverat="2999-01-02T04:04:05+01:00", datacontenttype="application/json")

    body = post(event).json()

    moment = "2999-01-02T03:04:05Z"
    assert (body["state"], body["enqueued"], body["deliver_at"]) == ("queued", False, moment)
    view = get(body["event_id"], "data,timeline").json()
    assert view["event"] == event, "as it was sent"
    assert view["available_at"] == "2999-01-02T03:04:05Z"
    assert view["timeline"][0]["detail"] == {"deliver_at": moment}
    assert view["waiting"]["reason"] == "scheduled"
    again = post(event).json()
    assert (again["event_id"], again["duplicate"]) == (body["event_id"], True)


def test_a_binary_event_is_sent_for_later(ingest: Any, key: str, get: Get) -> None:
    body = binary(ingest, key, b"{}", ce_deliverat="2999-01-02T03:04:05Z").json()

    assert get(body["event_id"]).json()["available_at"] == "2999-01-02T03:04:05Z"


@pytest.mark.parametrize("moment", ["tomorrow", "2999-01-02T03:04:05", "3600", 3600, True])
def test_what_is_no_time_is_refused_by_name(post: Post, make_event: MakeEvent, moment: object) -> None:
    answer = post(make_event(deliverat=moment))

    [error] = answer.json()["errors"]
    assert (answer.status_code, error["pointer"]) == (400, "/deliverat")
    assert "RFC 3339" in error["detail"] or "must be a string" in error["detail"]


def test_include_brings_the_timeline(post: Post, get: Get, make_event: MakeEvent) -> None:
    event_id = post(make_event()).json()["event_id"]

    plain, with_timeline = get(event_id).json(), get(event_id, "timeline").json()

    assert "timeline" not in plain
    assert "data" not in plain["event"]
    assert [(entry["version"], entry["state"]) for entry in with_timeline["timeline"]] == [(1, "queued")]


def test_an_unknown_include_names_the_known_ones(post: Post, get: Get, make_event: MakeEvent) -> None:
    answer = get(post(make_event()).json()["event_id"], "everything")

    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_include")
    assert "timeline" in answer.json()["detail"]


def test_another_tenants_event_is_not_there(ingest: Any, post: Post, get: Get, make_event: MakeEvent) -> None:
    event_id = post(make_event()).json()["event_id"]

    assert get(event_id, key=ingest.key(tenant="other")).status_code == 404
    assert get("not-a-uuid").status_code == 404


def test_the_same_event_again_is_a_duplicate_whatever_else_has_changed(post: Post, make_event: MakeEvent) -> None:
    event = make_event(data={"a": 1, "b": [1, 2]})
    first = post(event).json()

    again = post(event | {"data": {"b": [1, 2], "a": 1}, "time": "2026-11-24T09:30:00Z", "subject": "another"})

    assert again.status_code == 202
    assert again.json() == first | {"duplicate": True, "enqueued": False}


@pytest.mark.parametrize("change", [{"data": {"n": 2}}, {"type": "test.undone"}])
def test_an_identity_used_for_something_else_is_422(
    post: Post, get: Get, make_event: MakeEvent, change: dict[str, Any]
) -> None:
    event = make_event()
    event_id = post(event).json()["event_id"]

    answer = post(event | change)

    assert (answer.status_code, answer.json()["code"]) == (422, "id_conflict")
    assert get(event_id, "data").json()["event"] == event | {"datacontenttype": "application/json"}


def test_one_identity_fifty_times_at_once_is_one_event(post: Post, make_event: MakeEvent) -> None:
    event = make_event()
    barrier = threading.Barrier(50)

    def send(_: int) -> dict[str, Any]:
        barrier.wait()
        answer = post(event)
        assert answer.status_code == 202
        return dict(answer.json())

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(send, range(50)))

    assert sum(answer["duplicate"] for answer in answers) == 49
    assert len({answer["event_id"] for answer in answers}) == 1


def test_the_doorbell_is_rung_and_the_update_published(
    ingest: Any, post: Post, make_event: MakeEvent, live: "redis.Redis"
) -> None:
    body = post(make_event(audience="user-7")).json()

    with redis.Redis.from_url(ingest.broker_url) as broker:
        rung = [json.loads(message) for message in broker.hvals("dramatiq:events.msgs")]
    assert [message["args"] for message in rung if message["args"][0] == body["event_id"]] == [[body["event_id"], 1]]
    for topic in (f"event:{body['event_id']}", "audience:user-7", "tenant:acme"):
        entries = live.xrange(topic_keys("acme", topic).stream)
        assert body["event_id"] in str(entries)


def test_the_requests_trace_is_not_the_events(post: Post, get: Get, make_event: MakeEvent) -> None:
    sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    event_id = post(make_event(), traceparent=sent).json()["event_id"]

    assert "traceparent" not in get(event_id).json()["event"]


def test_the_relay_has_nothing_to_do_for_what_was_published(ingest: Any, post: Post, make_event: MakeEvent) -> None:
    event_id = UUID(post(make_event()).json()["event_id"])
    publisher = open_publisher(ingest.redis_url, timeout_seconds=5, window_seconds=600, window_updates=100)

    assert publisher.missing([(event_id, 1), (event_id, 2)]) == [(event_id, 2)]

    publisher.close()


@pytest.mark.parametrize(
    ("body", "headers", "data"),
    [
        (b'{"n": [1]}', {"Content_Type": "application/json"}, {"data": {"n": [1]}}),
        (b'{"n": 1}', {"Content_Type": "application/vnd.acme+json; charset=utf-8"}, {"data": {"n": 1}}),
        (b'{"n": 1}', {"Content_Type": ""}, {"data": {"n": 1}}),
        (b"\x00\xff", {"Content_Type": ""}, {"data_base64": "AP8="}),
        (b"n=1", {"Content_Type": "text/plain"}, {"data_base64": "bj0x"}),
        (b"null", {"Content_Type": "application/json"}, {"data": None}),
    ],
)
def test_binary_mode_takes_json_as_json_and_the_rest_as_bytes(
    ingest: Any, key: str, get: Get, body: bytes, headers: dict[str, str], data: dict[str, Any]
) -> None:
    answer = binary(ingest, key, body, **headers)

    view = get(answer.json()["event_id"], "data").json()["event"]
    assert {
        name: value for name, value in view.items() if name.startswith("data") and name != "datacontenttype"
    } == data


@pytest.mark.parametrize(
    ("sent", "subject"),
    [
        (b"a%20b", "a b"),
        (b"100%", "100%"),
        (b"%zz", "%zz"),
        (b"%C3%BC", "ü"),
        ("ü".encode(), "ü"),
        (b"%2541", "%41"),
        (b'"quoted \\" text"', 'quoted " text'),
    ],
)
def test_header_values_are_decoded_once(ingest: Any, key: str, get: Get, sent: bytes, subject: str) -> None:
    answer = binary(ingest, key, b"{}", ce_subject=sent, Content_Type="application/json")

    assert get(answer.json()["event_id"]).json()["event"]["subject"] == subject


def test_header_values_that_are_not_utf8_are_refused(ingest: Any, key: str) -> None:
    answer = binary(ingest, key, b"{}", ce_subject=b"%FF")

    assert (answer.status_code, answer.json()["errors"][0]["header"]) == (400, "ce-subject")


@pytest.mark.parametrize("mode", ["binary", "structured"])
@pytest.mark.parametrize("version", [1, 2])
def test_the_python_sdks_are_understood(ingest: Any, key: str, get: Get, version: int, mode: str) -> None:
    sent = {"specversion": "1.0", "id": uuid4().hex, "type": "test.done", "source": "/sdk", "subject": "50 % ü"}
    attributes: dict[str, Any] = dict(sent)  # the SDKs add to what they are given
    data = {"text": "ü", "n": 1}
    if version == 1:
        made = CloudEvent1(attributes, data)
        headers, body = to_binary(made) if mode == "binary" else to_structured(made)
    else:
        attributes["datacontenttype"] = "application/json"
        message = (to_binary_event if mode == "binary" else to_structured_event)(CloudEvent2(attributes, data))
        headers, body = message.headers, message.body

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]  # 1.x leaves the subject as it is
    raw.append((b"Authorization", f"Bearer {key}".encode()))
    answer = httpx.post(f"{ingest.url}/v1/events", content=body, headers=raw)

    assert answer.status_code == 202, answer.text
    view = get(answer.json()["event_id"], "data").json()["event"]
    assert {name: view[name] for name in sent} == sent
    assert view["data"] == data


def test_outcomes_are_counted(ingest: Any, post: Post, make_event: MakeEvent) -> None:
    post(make_event())
    post(make_event(id=None))

    metrics = httpx.get(f"{ingest.metrics_url}/metrics").text

    assert 'holdfast_events_received_total{outcome="accepted"}' in metrics
    assert 'holdfast_events_received_total{outcome="missing"}' in metrics


def test_health_says_each_dependency(ingest: Any) -> None:
    ready = httpx.get(f"{ingest.url}/readyz")

    assert httpx.get(f"{ingest.url}/livez").json() == {"status": "ok"}
    dependencies = ("database", "live", "broker", "threads", "workers")
    assert ready.json() == {"status": "ok", "checks": dict.fromkeys(dependencies, "ok")}
    assert ready.headers["X-Content-Type-Options"] == "nosniff"


def test_a_request_id_is_taken_over_if_it_is_harmless(ingest: Any) -> None:
    sane = httpx.get(f"{ingest.url}/livez", headers={"X-Request-Id": "trace-12345"}).headers["X-Request-Id"]
    odd = httpx.get(f"{ingest.url}/livez", headers={"X-Request-Id": "a b"}).headers["X-Request-Id"]

    assert sane == "trace-12345"
    assert odd != "a b"
