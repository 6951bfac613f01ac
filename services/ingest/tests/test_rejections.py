"""Everything that is not accepted: its status, its code, a problem that says how to do better, and no row."""

import secrets
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import text

pytestmark = pytest.mark.xdist_group("ingest-rejections")  # one process for all of them

MAX_EVENT_BYTES = 16 * 1024

Post = Callable[..., httpx.Response]
MakeEvent = Callable[..., dict[str, Any]]


def rows(ingest: Any) -> int:
    with ingest.database.transaction() as session:
        return int(session.scalar(text("SELECT count(*) FROM event")))


def expect_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert len(problem["detail"]) > 10
    assert problem["request_id"] == answer.headers["X-Request-Id"]
    assert "Traceback" not in answer.text
    return problem


BROKEN: dict[str, tuple[bytes, str]] = {
    "cut off": (b'{"specversion": "1.0", "id"', "invalid_json"),
    "empty": (b"", "invalid_json"),
    "a list": (b"[]", "not_an_object"),
    "Latin-1": (b'{"specversion":"1.0","id":"\xe9","source":"/a","type":"t"}', "invalid_encoding"),
    "a name twice": (b'{"specversion":"1.0","id":"1","id":"2","source":"/a","type":"t"}', "duplicate_name"),
    "a name twice in data": (
        b'{"specversion":"1.0","id":"1","source":"/a","type":"t","data":{"a":1,"a":2}}',
        "duplicate_name",
    ),
    "a very long integer": (
        b'{"specversion":"1.0","id":"1","source":"/a","type":"t","data":' + b"9" * 5000 + b"}",
        "number_out_of_range",
    ),
    "NaN": (b'{"specversion":"1.0","id":"1","source":"/a","type":"t","data":NaN}', "invalid_json"),
    "a number out of range": (
        b'{"specversion":"1.0","id":"1","source":"/a","type":"t","data":1e999}',
        "number_out_of_range",
    ),
    "half a pair in data": (
        b'{"specversion":"1.0","id":"1","source":"/a","type":"t","data":"\\ud800"}',
        "invalid_text",
    ),
    "half a pair in an id": (b'{"specversion":"1.0","id":"\\ud800","source":"/a","type":"t"}', "invalid_value"),
    "deep data": (
        b'{"specversion":"1.0","id":"1","source":"/a","type":"t","data":' + b"[" * 101 + b"]" * 101 + b"}",
        "too_deep",
    ),
    "very deep data": (
        b'{"specversion":"1.0","id":"1","source":"/a","type":"t","data":' + b"[" * 7000 + b"]" * 7000 + b"}",
        "too_deep",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_body_is_answered_with_what_is_wrong(ingest: Any, post: Post, name: str) -> None:
    body, code = BROKEN[name]
    before = rows(ingest)

    expect_problem(post(body), 400, code)

    assert rows(ingest) == before


ATTRIBUTES: dict[str, tuple[dict[str, Any], str]] = {
    "no id": ({"id": None}, "missing"),
    "no source": ({"source": None}, "missing"),
    "no type": ({"type": None}, "missing"),
    "no specversion": ({"specversion": None}, "missing"),
    "an empty id": ({"id": ""}, "missing"),
    "another specversion": ({"specversion": "0.3"}, "unsupported_version"),
    "a number for an id": ({"id": 7}, "invalid_type"),
    "an id with a line break": ({"id": "a\nb"}, "invalid_value"),
    "a long subject": ({"subject": "x" * 1025}, "too_long"),
    "an id that no index entry holds": ({"id": "".join(chr(0x20000 + 37 * n) for n in range(900))}, "too_long"),
    "a time without offset": ({"time": "2026-11-24T09:30:00"}, "invalid_value"),
    "a day that is not": ({"time": "2026-02-30T09:30:00Z"}, "invalid_value"),
    "a first instant": ({"time": "0001-01-01T00:00:00+01:00"}, "invalid_value"),
    "a wildcard for an audience": ({"audience": "user-*"}, "invalid_value"),
    "an extension in capitals": ({"comExample": "x"}, "invalid_name"),
    "an object for an extension": ({"comexample": {}}, "invalid_type"),
    "a large integer": ({"comexample": 2**31}, "invalid_value"),
    "a broken traceparent": ({"traceparent": "00-1-2-3"}, "invalid_value"),
    "two kinds of data": ({"data_base64": "AA=="}, "two_kinds_of_data"),
    "broken base64": ({"data": None, "data_base64": "%"}, "invalid_value"),
    "too many extensions": ({f"extension{n}": "x" for n in range(60)}, "too_many_attributes"),
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_wrong_attribute_is_named(ingest: Any, post: Post, make_event: MakeEvent, name: str) -> None:
    attributes, code = ATTRIBUTES[name]
    before = rows(ingest)

    problem = expect_problem(post(make_event(**attributes)), 400, code)

    assert problem["errors"][0]["pointer"].startswith("/")
    assert rows(ingest) == before


def test_the_longest_identity_fits_the_index(post: Post, make_event: MakeEvent) -> None:
    # Random, since PostgreSQL compresses what it can before it measures.
    longest = {name: secrets.token_hex(512) for name in ("source", "id")}

    assert post(make_event(**longest)).status_code == 202


def test_a_name_is_pointed_at_and_not_sent_back_whole(post: Post, make_event: MakeEvent) -> None:
    answer = post(make_event(**{"a/b~c" + "x" * 10_000: 1}))

    pointed = expect_problem(answer, 400, "invalid_name")["errors"][0]["pointer"]
    assert pointed.startswith("/a~1b~0cxx")
    assert len(answer.content) < 1000


def test_a_body_full_of_names_is_answered_briefly(post: Post, make_event: MakeEvent) -> None:
    answer = post(make_event(**{f"Extension{n}": 1 for n in range(700)}))

    expect_problem(answer, 400, "too_many_attributes")
    assert len(answer.content) < 1000


@pytest.mark.parametrize(
    ("headers", "body", "where", "code"),
    [
        ({"ce-type": None}, b"{}", {"header": "ce-type"}, "missing"),
        ({"ce-data": "1"}, b"{}", {"header": "ce-data"}, "invalid_name"),
        ({"ce-my-name": "1"}, b"{}", {"header": "ce-my-name"}, "invalid_name"),
        ({"ce-subject": "%00"}, b"{}", {"header": "ce-subject"}, "invalid_value"),
        ({"ce-subject": "%FF"}, b"{}", {"header": "ce-subject"}, "invalid_encoding"),
        ({"Content-Type": "text/" + "x" * 1024}, b"{}", {"header": "Content-Type"}, "too_long"),
        ({}, b"{", {"pointer": ""}, "invalid_json"),
    ],
)
def test_a_wrong_header_is_named(
    ingest: Any, key: str, headers: dict[str, str | None], body: bytes, where: dict[str, str], code: str
) -> None:
    right = {
        "Authorization": f"Bearer {key}", "Content-Type": "application/json", "ce-specversion": "1.0", "ce-id": "1",
        "ce-source": "/wrong-header", "ce-type": "t",
    }  # fmt: skip
    sent = {name: value for name, value in (right | headers).items() if value is not None}
    before = rows(ingest)

    answer = httpx.post(f"{ingest.url}/v1/events", content=body, headers=sent)

    assert where.items() <= expect_problem(answer, 400, code)["errors"][0].items()
    assert rows(ingest) == before


def test_every_fault_is_listed(post: Post, make_event: MakeEvent) -> None:
    problem = expect_problem(post(make_event(id=None, type=None, time="yesterday")), 400, "missing")

    assert [error["pointer"] for error in problem["errors"]] == ["/id", "/type", "/time"]


@pytest.mark.parametrize(
    "credential", ["", "Bearer", "Bearer nonsense", "Basic YTpi", "Bearer hf_aaaaaaaaaaaa_" + "x" * 43]
)
def test_no_or_an_unknown_key_is_401(post: Post, make_event: MakeEvent, credential: str) -> None:
    answer = post(make_event(), key=None, Authorization=credential)

    expect_problem(answer, 401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_wrong_secret_is_401(post: Post, make_event: MakeEvent, key: str) -> None:
    wrong = key[:-1] + ("A" if key[-1] != "A" else "B")

    expect_problem(post(make_event(), key=wrong), 401, "unauthorized")


def test_a_revoked_key_stops_working(ingest: Any, post: Post, make_event: MakeEvent, eventually: Any) -> None:
    key = ingest.key()
    assert post(make_event(), key=key).status_code == 202

    ingest.revoke(key)

    eventually(lambda: post(make_event(), key=key).status_code == 401, timeout_seconds=5)


def test_a_key_without_the_scope_is_403(ingest: Any, post: Post, make_event: MakeEvent) -> None:
    problem = expect_problem(post(make_event(), key=ingest.key("events:read")), 403, "forbidden")

    assert "events:write" in problem["detail"]


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content_Type": "application/json"}, 400, "not_a_cloudevent"),
        ({"Content_Type": "application/cloudevents-batch+xml"}, 415, "unsupported_format"),
        ({"Content_Type": "application/cloudevents+xml"}, 415, "unsupported_format"),
        ({"Content_Encoding": "gzip"}, 415, "unsupported_encoding"),
    ],
)
def test_another_format_is_refused(
    post: Post, make_event: MakeEvent, headers: dict[str, str], status: int, code: str
) -> None:
    expect_problem(post(make_event(), **headers), status, code)


@pytest.mark.parametrize("excess", [1, 100_000, 20_000_000])
def test_a_body_over_the_limit_is_413_with_a_length(ingest: Any, post: Post, excess: int) -> None:
    before = rows(ingest)

    expect_problem(post(b"x" * (MAX_EVENT_BYTES + excess)), 413, "too_large")

    assert rows(ingest) == before


def test_a_body_at_the_limit_is_read(post: Post, make_event: MakeEvent) -> None:
    event = make_event(data="")
    padding = MAX_EVENT_BYTES - len(str(event).replace("'", '"'))

    assert post(make_event(data="x" * padding)).status_code == 202


@pytest.mark.parametrize("excess", [1, 100_000, 20_000_000])
def test_a_chunked_body_over_the_limit_is_413_as_well(
    ingest: Any, key: str, make_event: MakeEvent, excess: int
) -> None:
    # A whole event in front: cut off at the limit it must not be taken for it.
    body = str(make_event()).replace("'", '"').encode() + b" " * (MAX_EVENT_BYTES + excess)
    before = rows(ingest)

    answer = httpx.post(
        f"{ingest.url}/v1/events", content=iter([body[:100], body[100:]]),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/cloudevents+json"},
    )  # fmt: skip

    expect_problem(answer, 413, "too_large")
    assert rows(ingest) == before


def test_an_unknown_address_and_method_are_problems_too(ingest: Any) -> None:
    expect_problem(httpx.get(f"{ingest.url}/nowhere"), 404, "not_found")
    answer = httpx.put(f"{ingest.url}/v1/events")

    expect_problem(answer, 405, "method_not_allowed")
    assert "POST" in answer.headers["Allow"]


def test_unfinished_requests_do_not_hold_others_up(ingest: Any, post: Post, make_event: MakeEvent, key: str) -> None:
    address = urlsplit(ingest.url)
    begun = (
        f"POST /v1/events HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {key}\r\n"
        "Content-Type: application/cloudevents+json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"spe\r\n"
    )  # fmt: skip
    unfinished = [socket.create_connection((address.hostname or "", address.port or 0)) for _ in range(8)]
    for connection in unfinished:
        connection.sendall(begun.encode())

    began = time.monotonic()
    status = post(make_event()).status_code
    took_seconds = time.monotonic() - began

    for connection in unfinished:
        connection.close()
    assert status == 202
    assert took_seconds < 3


def test_rejections_are_logged_without_what_was_sent(ingest: Any, post: Post, make_event: MakeEvent, key: str) -> None:
    answer = post(make_event(id=None, data={"card": "4111111111111111"}))

    logged = [line for line in ingest.lines() if line.get("request_id") == answer.headers["X-Request-Id"]]
    assert [(line["message"], line["code"], line["tenant"], line["method"], line["route"]) for line in logged] == [
        ("request rejected", "missing", "acme", "POST", "/v1/events")
    ]
    assert "4111111111111111" not in ingest.log.read_text()
    assert key not in ingest.log.read_text()
