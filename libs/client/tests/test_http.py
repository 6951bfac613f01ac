"""The HTTP client against a real server that answers from a script."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast.client import ApiProblem, Client, LastError, Unreachable, WaitTimedOut

EventBody = Callable[..., dict[str, Any]]

ACCEPTED: tuple[int, Any, dict[str, str]] = (
    202,
    {"event_id": "e1", "state": "queued", "version": 1, "duplicate": False, "enqueued": True},
    {},
)


@pytest.fixture
def client(script: Any) -> Iterator[Client]:
    with Client(script.url + "/", "hf_key\n") as client:
        yield client


def test_a_sent_event_is_a_whole_cloudevent(script: Any, client: Client) -> None:
    script.answers = [ACCEPTED]

    sent = client.send({"type": "com.acme.order.placed", "data": {"n": 1}})

    path, headers, event = script.requests[0]
    assert (path, headers["Content-Type"], headers["Authorization"]) == (
        "/v1/events", "application/cloudevents+json", "Bearer hf_key",
    )  # fmt: skip
    assert {"specversion", "id", "source", "time", "type", "data"} == event.keys()
    assert (sent.event_id, sent.state, sent.is_duplicate) == ("e1", "queued", False)


def test_what_the_event_says_itself_is_kept(script: Any, client: Client) -> None:
    script.answers = [ACCEPTED]
    own = {
        "id": "order-1",
        "source": "/shop",
        "time": "2026-11-24T09:30:00Z",
        "type": "t",
        "subject": None,
        "data": None,
    }

    client.send(own)

    sent = script.requests[0][2]
    assert {name: sent[name] for name in ("id", "source", "time", "data")} == {
        "id": "order-1", "source": "/shop", "time": "2026-11-24T09:30:00Z", "data": None,
    }  # fmt: skip
    assert "subject" not in sent


def test_an_id_that_is_none_is_one_that_is_missing(script: Any, client: Client) -> None:
    script.answers = [ACCEPTED]

    client.send({"type": "t", "id": None})

    assert script.requests[0][2]["id"]


@pytest.mark.parametrize("text", ["ü€😀", "half a pair: \ud83d"])
def test_any_text_arrives_as_it_is(script: Any, client: Client, text: str) -> None:
    script.answers = [ACCEPTED]

    client.send({"type": "t", "data": text})

    assert script.requests[0][2]["data"] == text


def test_the_same_event_is_sent_again_while_the_server_is_busy(script: Any, client: Client) -> None:
    script.answers = [(503, {}, {"Retry-After": "0"}), (429, {}, {}), ACCEPTED]

    client.send({"type": "t"})

    assert len({event["id"] for _, _, event in script.requests}) == 1
    assert len(script.requests) == 3


def test_a_server_that_stays_busy_is_left_alone_after_some_attempts(script: Any, client: Client) -> None:
    script.answers = [(503, {"code": "database_unavailable", "detail": "later"}, {})]

    with pytest.raises(ApiProblem, match="503 database_unavailable: later") as caught:
        client.send({"type": "t"})

    assert caught.value.is_temporary
    assert len(script.requests) == 5


def test_nothing_is_sent_again_before_the_server_s_retry_after(script: Any, client: Client) -> None:
    script.answers = [(503, {}, {"Retry-After": "1"}), ACCEPTED]
    began = time.monotonic()

    client.send({"type": "t"})

    assert time.monotonic() - began >= 1


def test_a_long_retry_after_is_the_caller_s_to_decide(script: Any, client: Client) -> None:
    script.answers = [(429, {"code": "over_rate", "detail": "slower"}, {"Retry-After": "3600"})]

    with pytest.raises(ApiProblem, match="over_rate"):
        client.send({"type": "t"})

    assert len(script.requests) == 1


def test_a_problem_is_raised_with_what_it_says(script: Any, client: Client) -> None:
    errors = [{"pointer": "/id", "code": "missing", "detail": "the attribute id is required"}]
    script.answers = [(400, {"code": "missing", "detail": "the id", "request_id": "r1", "errors": errors}, {})]

    with pytest.raises(ApiProblem, match=r"400 missing: the id \[r1\]") as caught:
        client.send({"type": "t"})

    assert (caught.value.status, caught.value.errors, caught.value.is_temporary) == (400, errors, False)
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (200, b"<html>", {}), (200, [], {}), (200, {"hello": "world"}, {}), (404, b"not found", {}), (403, {"error": 1}, {}),
        (301, b"", {"Location": "https://elsewhere.example"}),
    ],
)  # fmt: skip
def test_an_answer_that_is_not_holdfast_s_is_said_to_be_so(
    script: Any, client: Client, status: int, body: Any, headers: dict[str, str]
) -> None:
    script.answers = [(status, body, headers)]

    with pytest.raises(ApiProblem, match="check the address") as caught:
        client.get("e1")

    assert (caught.value.status, caught.value.code) == (status, "not_holdfast")
    assert headers.get("Location", "") in str(caught.value)


def test_nobody_there_is_said_with_the_address() -> None:
    with (
        Client("http://127.0.0.1:1", "hf_key") as client,
        pytest.raises(Unreachable, match=r"http://127[.]0[.]0[.]1:1"),
    ):
        client.get("e1")


@pytest.mark.parametrize("address", ["", "localhost:8080", "ftp://example.com", "http://", "http://a b:x"])
def test_an_address_that_is_none_is_refused_with_an_example(address: str) -> None:
    with pytest.raises(Unreachable, match="https://events"):
        Client(address, "hf_key")


def test_a_key_copied_from_the_documents_is_refused_without_repeating_it() -> None:
    with pytest.raises(Unreachable, match="copy all of it again") as caught:
        Client("http://127.0.0.1:1", "hf_abc…")

    assert "hf_abc" not in str(caught.value)


def test_an_event_id_is_one_segment_of_the_path(script: Any, client: Client, event_body: EventBody) -> None:
    script.answers = [(200, event_body(), {})]

    client.get("../keys?a", include=["data", "timeline"])

    assert script.requests[0][0] == "/v1/events/..%2Fkeys%3Fa?include=data%2Ctimeline"


def test_an_event_is_read_with_times_errors_timeline_and_attempts(
    script: Any, client: Client, event_body: EventBody
) -> None:
    entry = {"version": 3, "state": "dead", "attempt": 1, "at": "2026-11-24T11:30:01+02:00", "detail": {"reason": "r"}}
    error = {"type": "KeyError", "message": "no key", "fingerprint": "f", "traceback": "Traceback"}
    attempt = {
        "attempt": 1, "outcome": "failed", "handler": "h", "error": error, "worker": "w", "duration_ms": 12,
        "at": "2026-11-24T09:30:01Z", "trace_id": None,
    }  # fmt: skip
    body = event_body(
        state="dead", last_error={"type": "KeyError", "message": "no key", "handler": "h"}, timeline=[entry],
        attempts=[attempt, attempt | {"outcome": "processed", "error": None}], replay_of="e0", of_a_newer_server=1,
    )  # fmt: skip
    script.answers = [(200, body, {})]

    event = client.get("e1")

    assert (event.received_at, event.finished_at) == (datetime(2026, 11, 24, 9, 30, 0, 100_000, UTC), None)
    assert (event.last_error, event.replay_of) == (LastError("KeyError", "no key", "h"), "e0")
    assert event.timeline is not None
    assert [(each.at, each.detail) for each in event.timeline] == [
        (datetime(2026, 11, 24, 9, 30, 1, tzinfo=UTC), {"reason": "r"})
    ]
    assert event.timeline[0].at.utcoffset() == timedelta(hours=2)
    assert event.attempts is not None
    assert [(each.duration_ms, each.error and each.error.traceback) for each in event.attempts] == [
        (12, "Traceback"), (12, None),
    ]  # fmt: skip
    assert event.raw == body
    assert len({event, client.get("e1")}) == 1


def test_what_was_not_included_is_none_and_no_payload_is_in_a_repr(
    script: Any, client: Client, event_body: EventBody
) -> None:
    error = {"type": "KeyError", "message": "s3cret", "handler": None}
    script.answers = [(200, event_body(event={"type": "t", "data": "s3cret"}, last_error=error), {})]

    event = client.get("e1")

    assert (event.timeline, event.attempts) == (None, None)
    assert "s3cret" not in repr(event)


@pytest.mark.parametrize("received_at", ["2026-11-24T09:30:00", "soon", None, 7])
def test_a_time_that_is_none_is_not_holdfast_s(
    script: Any, client: Client, event_body: EventBody, received_at: object
) -> None:
    script.answers = [(200, event_body(received_at=received_at), {})]

    with pytest.raises(ApiProblem, match="check the address"):
        client.get("e1")


@pytest.mark.parametrize("end", ["processed", "dead", "discarded"])
def test_waiting_asks_until_the_event_is_settled(script: Any, client: Client, event_body: EventBody, end: str) -> None:
    script.answers = [(200, event_body(state=state), {}) for state in ("queued", "processing", "failed", end)]

    assert client.wait("e1", timeout_seconds=10).state == end


def test_waiting_has_an_end(script: Any, client: Client, event_body: EventBody) -> None:
    script.answers = [(200, event_body(), {})]

    with pytest.raises(WaitTimedOut, match=r"still queued after 0\.2 s"):
        client.wait("e1", timeout_seconds=0.2)


def test_a_token_is_asked_for_with_what_was_given(script: Any, client: Client) -> None:
    script.answers = [(201, {"token": "jwt", "expires_at": 7, "live_url": None}, {})]

    token = client.token(["event:*"], ttl_seconds=60)

    assert (token.token, token.expires_at, token.live_url) == ("jwt", 7, None)
    assert script.requests[0][2] == {"topics": ["event:*"], "ttl_seconds": 60}


def test_data_is_what_the_server_has_and_none_where_there_is_none(script: Any, client: Client) -> None:
    script.answers = [(200, b"\xff 1.10", {}), (200, b"", {}), (204, b"", {})]

    assert [client.data("a/b") for _ in range(3)] == [b"\xff 1.10", b"", None]
    assert script.requests[0][0] == "/v1/events/a%2Fb/data"
