"""What a sender sent is what everybody is given: numbers, order of names, escapes, white space."""

import base64
import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from holdfast.domain.event import canonical_json, digest
from holdfast.ingest.intake.batch import read_batch
from holdfast.ingest.intake.cloudevents import read_event
from holdfast.ingest.intake.faults import InvalidEvent
from holdfast.ingest.intake.strict_json import MAX_DEPTH, _parse_strictly, check_data, parse
from holdfast.runtime.ids import uuid7

pytestmark = pytest.mark.xdist_group("ingest-fidelity")  # one process for all of them

STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"

Api = Callable[..., httpx.Response]


def spaces() -> st.SearchStrategy[str]:
    return st.text(" \t\r\n", max_size=2)


def number_texts() -> st.SearchStrategy[str]:
    return st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)


def string_texts() -> st.SearchStrategy[str]:
    escapes = st.sampled_from(
        [r"\u0000", r"\u00fc", r"\n", r"\/", r"\"", r"\\", r"\u003A", r"\ud83d\ude00", ":", "{", "["]
    )
    plain = st.characters(min_codepoint=32, exclude_characters='"\\', exclude_categories=["Cs"])
    return st.lists(escapes | plain, max_size=6).map(lambda parts: '"' + "".join(parts) + '"')


def unique_members(members: list[tuple[str, str, str]]) -> str:
    named = {json.loads(name): (name, space, value) for name, space, value in members}
    return "{" + ",".join(f"{space}{name}{space}:{space}{value}" for name, space, value in named.values()) + "}"


OLD_EVENT = text("""
INSERT INTO event (id, tenant, source, ce_id, type, data, data_digest) VALUES (:id, 'acme', '/f', :ce_id, 't', :data, :digest)
""")

OLD_STATE = text("""
INSERT INTO processing_state (event_id, state, version, available_at, next_dispatch_at)
VALUES (:id, 'queued', 1, now(), now())
""")
"""As a release from before revision 0008 recorded it."""

TEXTS: st.SearchStrategy[str] = st.recursive(
    st.sampled_from(["null", "true", "false", "[]", "{}", '""']) | number_texts() | string_texts(),
    lambda inner: (
        st.lists(st.tuples(spaces(), inner).map("".join), max_size=4).map(lambda each: f"[{','.join(each)}]")
        | st.lists(st.tuples(string_texts(), spaces(), inner), max_size=4).map(unique_members)
    ),
    max_leaves=12,
)
"""JSON texts in every form that the grammar (RFC 8259) allows."""


def envelope(text: str, ce_id: str = "1", source: str = "/a") -> bytes:
    head = json.dumps({"specversion": "1.0", "id": ce_id, "source": source, "type": "t"})
    return f'{{ "x" : "data:", "data" : {text} ,{head[1:]}'.encode()


@given(TEXTS)
def test_the_text_of_data_is_read_exactly_in_every_mode(text: str) -> None:
    body = envelope(text)
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-source": "/a",
        "ce-type": "t",
        "Content-Type": "application/json",
    }

    structured = read_event({"Content-Type": STRUCTURED}, body, event_id=uuid7(), tenant="t")
    binary = read_event(headers, text.encode(), event_id=uuid7(), tenant="t")
    several = read_batch(b" [" + body + b", " + body + b"]", new_id=uuid7, tenant="t", most_bytes=10_000)

    assert [each.content for each in (structured, binary, *several)] == [text.encode()] * 4


@given(TEXTS | st.text(max_size=40) | st.binary(max_size=40).map(lambda raw: raw.decode("latin-1")))
def test_the_quick_parser_and_the_strict_one_agree(text: str) -> None:
    def verdict(read: Callable[[], Any]) -> Any:
        try:
            return json.dumps(read(), sort_keys=True)
        except InvalidEvent as exc:
            return [fault.code for fault in exc.faults]

    body = text.encode()

    assert verdict(lambda: parse(body, where="").value) == verdict(lambda: _parse_strictly(body, ""))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"a":1,"a":2}', "duplicate_name"), ('{"a":{"b":1,"\\u0062":2}}', "duplicate_name"),
        ('{"a:":1,"b":{"c":1,"c":":"}}', "duplicate_name"), ('{"a":"\\u003a","a":2}', "duplicate_name"),
        ('{"a":"\\u003A","b":{"c":1,"c":2}}', "duplicate_name"), ('[{"":1,"":1}]', "duplicate_name"),
        ("[1e400]", "number_out_of_range"), ("9" * 1001, "number_out_of_range"),
        ("[" + "1," * 70 + "9" * 1001 + "]", "number_out_of_range"), ('["\\udc00"]', "invalid_text"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "too_deep"), ("[Infinity]", "invalid_json"),
        ('[1,{"a":1}', "invalid_json"), ("\ufeff1", "invalid_json"), ("01", "invalid_json"),
    ],
)  # fmt: skip
def test_what_two_readers_could_read_differently_is_refused(text: str, code: str) -> None:
    def read(body: bytes) -> None:
        parsed = parse(body, where="")
        check_data(parsed, parsed.value, body, where="")

    with pytest.raises(InvalidEvent) as caught:
        read(text.encode())

    assert [fault.code for fault in caught.value.faults] == [code]


@pytest.mark.parametrize(
    "text",
    [
        "9" * 1000, "18446744073709551616", '{"a":"\\u003a"}', '{"a":":::"}', "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        "[" + "[]," * 200 + "1]", '"\\u0000"', "1e-400", '"\\ud83d\\ude00"',
    ],
)  # fmt: skip
def test_what_is_only_unusual_is_taken(text: str) -> None:
    event = read_event({"Content-Type": STRUCTURED}, envelope(text), event_id=uuid7(), tenant="t")

    assert event.data_json == text


def sent(ingest: Any, key: str, body: bytes, content_type: str, **headers: str) -> str:
    names = {"Authorization": f"Bearer {key}", "Content-Type": content_type} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    answer = httpx.post(f"{ingest.url}/v1/events", content=body, headers=names)
    assert answer.status_code == 202, answer.text
    accepted = answer.json()
    return str(accepted["events"][0]["event_id"] if "events" in accepted else accepted["event_id"])


@pytest.fixture
def fetch(ingest: Any, key: str) -> Callable[..., httpx.Response]:
    def ask(path: str, *, key: str = key) -> httpx.Response:
        return httpx.get(f"{ingest.url}/v1/events/{path}", headers={"Authorization": f"Bearer {key}"})

    return ask


@given(text=TEXTS, mode=st.sampled_from(["structured", "binary", "batch"]))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_data_goes_out_as_it_came_in(ingest: Any, key: str, fetch: Api, text: str, mode: str) -> None:
    ce_id = uuid4().hex
    if mode == "binary":
        named = {"ce_specversion": "1.0", "ce_id": ce_id, "ce_source": "/f", "ce_type": "t"}
        event_id = sent(ingest, key, text.encode(), "application/json", **named)
    elif mode == "structured":
        event_id = sent(ingest, key, envelope(text, ce_id, "/f"), STRUCTURED)
    else:
        event_id = sent(ingest, key, b"[" + envelope(text, ce_id, "/f") + b"]", BATCH)

    raw, whole = fetch(f"{event_id}/data"), fetch(f"{event_id}?include=data,timeline")

    assert (raw.content, raw.headers["Content-Type"]) == (text.encode(), "application/json")
    assert text.encode() in whole.content
    assert json.loads(whole.content)["event"]["data"] == json.loads(text)


def test_a_null_and_nothing_are_two_things(ingest: Any, key: str, fetch: Api) -> None:
    null = sent(ingest, key, envelope("null", uuid4().hex), STRUCTURED)
    named = {"ce_specversion": "1.0", "ce_id": uuid4().hex, "ce_source": "/f", "ce_type": "t"}
    nothing = sent(ingest, key, b"", "application/json", **named)

    answers = [(fetch(f"{each}/data"), fetch(f"{each}?include=data").json()["event"]) for each in (null, nothing)]

    assert [(raw.status_code, raw.content) for raw, _ in answers] == [(200, b"null"), (204, b"")]
    assert answers[0][1]["data"] is None
    assert "data" not in answers[1][1]


@pytest.mark.parametrize(
    ("content_type", "told"),
    [
        ("text/html; charset=utf-8", "text/html; charset=utf-8"), ("image/svg+xml", "image/svg+xml"),
        ('multipart/form-data; boundary="a b"', 'multipart/form-data; boundary="a b"'),
        ("nonsense", "application/octet-stream"), ("text/html\u00fc", "application/octet-stream"),
    ],
)  # fmt: skip
def test_a_strangers_page_is_saved_and_never_run(
    ingest: Any, key: str, fetch: Api, content_type: str, told: str
) -> None:
    page = b"<script>alert(1)</script>\xff"
    event = {
        "specversion": "1.0", "id": uuid4().hex, "source": "/f", "type": "t", "datacontenttype": content_type,
        "data_base64": base64.b64encode(page).decode(),
    }  # fmt: skip
    event_id = sent(ingest, key, json.dumps(event).encode(), STRUCTURED)

    answer = fetch(f"{event_id}/data")

    assert (answer.content, answer.headers["Content-Type"]) == (page, told)
    assert answer.headers["Content-Disposition"] == "attachment"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"


def test_text_in_an_envelope_goes_out_as_text(ingest: Any, key: str, fetch: Api) -> None:
    event = {"specversion": "1.0", "id": uuid4().hex, "source": "/f", "type": "t", "datacontenttype": "text/plain"}
    event_id = sent(ingest, key, json.dumps(event | {"data": "a\nb"}).encode(), STRUCTURED)
    named = {f"ce_{name}": str(event[name]) for name in ("specversion", "id", "source", "type")}

    again = sent(ingest, key, b"a\nb", "text/plain", **named)

    assert again == event_id, "one event in both modes"
    assert (fetch(f"{event_id}/data").content, fetch(f"{event_id}?include=data").json()["event"]["data"]) == (
        b"a\nb", "a\nb",
    )  # fmt: skip


def test_another_tenants_data_is_not_there(ingest: Any, key: str, fetch: Api) -> None:
    event_id = sent(ingest, key, envelope("1", uuid4().hex), STRUCTURED)

    assert fetch(f"{event_id}/data", key=ingest.key(tenant="other")).status_code == 404
    assert fetch(f"{uuid4()}/data").status_code == 404
    assert fetch("nonsense/data").json()["code"] == "not_found"
    assert fetch(f"{event_id}/data", key=ingest.key("events:write")).status_code == 403


def test_an_event_of_before_is_shown_listed_and_recognised(ingest: Any, key: str, fetch: Api, post: Api) -> None:
    event_id, ce_id = str(uuid7()), uuid4().hex
    value = {"b": [1, None], "price": 19.99}
    row = {
        "id": event_id, "ce_id": ce_id, "data": canonical_json(value), "digest": digest("t", canonical_json(value), None),
    }  # fmt: skip
    with ingest.database.transaction() as session:
        session.execute(OLD_EVENT, row)
        session.execute(OLD_STATE, row)

    listed = httpx.get(
        f"{ingest.url}/v1/events", params={"id": ce_id}, headers={"Authorization": f"Bearer {key}"}
    ).json()["items"]
    again = post(envelope('{"price": 1999e-2, "b": [1, null]}', ce_id, "/f"))

    assert [item["event_id"] for item in listed] == [event_id]
    assert fetch(f"{event_id}/data").json() == fetch(f"{event_id}?include=data").json()["event"]["data"] == value
    assert (again.json()["event_id"], again.json()["duplicate"]) == (event_id, True)


def test_an_exact_number_is_no_duplicate_of_a_rounded_one(post: Api) -> None:
    ce_id = uuid4().hex

    answers = [post(envelope(text, ce_id, "/f")) for text in ("19.99", "1999e-2", "19.990000000000000000001")]

    assert [(answer.status_code, answer.json().get("duplicate")) for answer in answers] == [
        (202, False), (202, True), (422, None),
    ]  # fmt: skip
