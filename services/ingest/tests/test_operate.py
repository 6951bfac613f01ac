"""What an operator may do over HTTP, and every refusal with its status and code."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
import redis
from sqlalchemy import text

from holdfast.messaging.live import topic_keys

pytestmark = pytest.mark.xdist_group("ingest-operate")  # one process for all of them

NOBODY = "01a20ce1-a999-7253-85bb-3c3e269307a2"
Api = Callable[..., httpx.Response]
Put = Callable[..., str]


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


def audited(ingest: Any, event_id: str) -> list[tuple[str, str]]:
    with ingest.database.transaction() as session:
        rows = session.execute(
            text("SELECT actor, action FROM audit_log WHERE event_id = :id ORDER BY id"), {"id": event_id}
        )
        return [(row.actor, row.action) for row in rows]


def test_a_list_has_pages_that_follow_each_other(api: Api, put: Put) -> None:
    source = f"/pages/{uuid4().hex}"
    made = [put(source=source) for _ in range(5)]

    seen, cursor, pages = [], None, 0
    while pages == 0 or cursor:
        page = api("GET", "/v1/events", params={"source": source, "limit": 2, "cursor": cursor or ""}).json()
        seen += [item["event_id"] for item in page["items"]]
        cursor, pages = page["next_cursor"], pages + 1

    assert seen == made[::-1]
    assert pages == 3


def test_a_list_takes_every_filter(api: Api, put: Put) -> None:
    unique = uuid4().hex
    event_id = put("dead", source="/f", id=unique, type="test.filtered", subject="s", audience="a", error=f"E{unique}")
    put("dead", error=f"E{unique}")
    wanted = {
        "source": "/f", "id": unique, "type": "test.filtered", "state": "dead", "subject": "s", "audience": "a",
        "error_type": f"E{unique}", "handler": "h", "fingerprint": "f", "received_after": "2026-01-01T00:00:00Z",
        "received_before": "2999-01-01T00:00:00+01:00",
    }  # fmt: skip

    [item] = api("GET", "/v1/events", params=wanted).json()["items"]

    assert (item["event_id"], item["state"], item["event"]["id"]) == (event_id, "dead", unique)
    assert "data" not in item["event"]
    assert len(api("GET", "/v1/events", params={"error_type": f"E{unique}"}).json()["items"]) == 2


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("sate=dead", "sate"), ("state=dying", "state"), ("state=dead&state=queued", "state"), ("limit=0", "limit"),
        ("limit=201", "limit"), ("limit=x", "limit"), ("limit=-0.5", "limit"),
        ("limit=NaN", "limit"), ("limit=18446744073709551616", "limit"), ("limit=" + "9" * 3000, "limit"),
        ("received_after=0001-01-01T00:00:00%2B23:59", "received_after"),
        ("received_before=9999-12-31T23:59:59-00:01", "received_before"),
        ("received_before=1e300", "received_before"), ("received_after=-62135596801", "received_after"),
        ("received_after=1700000000", "received_after"), ("received_after=10000-01-01T00:00:00Z", "received_after"),
        ("cursor=x", "cursor"), ("received_after=yesterday", "received_after"),
        ("received_after=2026-01-01T00:00:00", "received_after"), ("type=%00", "type"), ("type=" + "x" * 2000, "type"),
    ],
)  # fmt: skip
def test_a_filter_that_can_not_be_is_named(api: Api, query: str, parameter: str) -> None:
    answer = api("GET", f"/v1/events?{query}")

    assert code(answer) == (400, "invalid_request")
    assert [fault["parameter"] for fault in answer.json()["errors"]] == [parameter]


@pytest.mark.parametrize(
    "moment",
    [
        "0001-01-01T00:00:00Z", "0001-01-02T00:00:00+23:59", "9999-12-31T23:59:59.9999999Z", "9999-12-30T23:59:59-23:59",
        "2026-11-28T00:00:00+16:00", "2016-12-31T23:59:60Z", "2017-01-01T08:59:60.5+09:00", "2026-11-28t00:00:00z",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["received_after", "received_before"])
def test_every_time_of_the_calendar_is_a_filter(api: Api, name: str, moment: str) -> None:
    listed = api("GET", "/v1/events", params={name: moment, "limit": 1})
    counted = api("POST", "/v1/replays", json={"filter": {name: moment}, "dry_run": True})

    assert (listed.status_code, counted.status_code) == (200, 200), (listed.text, counted.text)


def test_a_refused_number_is_answered_with_what_was_received_and_the_range(api: Api) -> None:
    answer = api("POST", "/v1/replays", content=b'{"filter": {}, "rate_per_s": 1e-300}')
    listed = api("GET", "/v1/events?limit=" + "9" * 3000)

    [fault] = answer.json()["errors"]
    assert (fault["received"], "from 0.01 to 1000" in fault["detail"]) == ("1e-300", True)
    [fault] = listed.json()["errors"]
    assert (len(fault["received"]) <= 80, "from 1 to 200" in fault["detail"]) == (True, True)


def test_attempts_come_alone_or_with_the_event(api: Api, put: Put) -> None:
    event_id = put("dead", traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")

    [attempt] = api("GET", f"/v1/events/{event_id}/attempts").json()["items"]

    assert attempt | {"at": ""} == {
        "attempt": 1, "outcome": "failed", "handler": "h", "worker": "w-1", "duration_ms": None, "at": "",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "error": {"type": "KeyError", "message": "no such key", "fingerprint": "f", "traceback": "Traceback …"},
    }  # fmt: skip
    view = api("GET", f"/v1/events/{event_id}?include=attempts,data,timeline").json()
    assert (view["attempts"], len(view["timeline"]), view["event"]["data"]) == ([attempt], 3, {"n": 1})


READERS = [("events:read",), ("events:read", "events:write")]
OPERATORS = [("events:read", "operate"), ("admin",)]


def messages_for(ingest: Any, api: Api, event_id: str, scopes: tuple[str, ...], *, error: str) -> list[str | None]:
    """The error's text at each place that has one: event, list, attempts twice, group."""
    key = ingest.key(*scopes)
    view = api("GET", f"/v1/events/{event_id}?include=attempts", key=key).json()
    [item] = api("GET", "/v1/events", params={"error_type": error}, key=key).json()["items"]
    [attempt] = api("GET", f"/v1/events/{event_id}/attempts", key=key).json()["items"]
    groups = api("GET", "/v1/dead-letters", params={"limit": 200}, key=key).json()["items"]
    [sample] = [group["sample"] for group in groups if group["error_type"] == error]
    assert view["attempts"] == [attempt]
    assert (view["last_error"]["type"], attempt["error"]["type"]) == (error, error)
    assert (attempt["error"]["traceback"] is not None) == (scopes in OPERATORS)
    return [
        view["last_error"]["message"],
        item["last_error"]["message"],
        attempt["error"]["message"],
        sample["message"],
    ]


@pytest.mark.parametrize("scopes", READERS)
def test_an_exceptions_own_text_is_not_for_readers(
    ingest: Any, api: Api, put: Put, scopes: tuple[str, ...]
) -> None:  # fmt: skip
    error = f"E{uuid4().hex}"
    event_id = put("dead", error=error)

    assert messages_for(ingest, api, event_id, scopes, error=error) == [None] * 4
    whole = api("GET", f"/v1/events/{event_id}?include=attempts,timeline", key=ingest.key(*scopes)).text
    assert "no such key" not in whole
    assert "Traceback" not in whole


@pytest.mark.parametrize("scopes", OPERATORS)
def test_operators_see_what_an_exception_says(ingest: Any, api: Api, put: Put, scopes: tuple[str, ...]) -> None:
    error = f"E{uuid4().hex}"
    event_id = put("dead", error=error)

    assert messages_for(ingest, api, event_id, scopes, error=error) == ["no such key"] * 4


@pytest.mark.parametrize("scopes", [*READERS, *OPERATORS])
def test_everybody_sees_the_reason_that_an_author_wrote_for_them(
    ingest: Any, api: Api, put: Put, scopes: tuple[str, ...]
) -> None:
    error = f"E{uuid4().hex}"
    event_id = put("dead", error=error, reason="no such key")

    assert messages_for(ingest, api, event_id, scopes, error=error) == ["no such key"] * 4
    view = api("GET", f"/v1/events/{event_id}?include=timeline", key=ingest.key(*scopes)).json()
    assert view["timeline"][-1]["detail"] == {"error": {"type": error, "message": "no such key"}}


def test_a_replayed_dead_event_is_queued_told_rung_and_noted(
    ingest: Any, api: Api, put: Put, live: "redis.Redis", operator_key: str
) -> None:
    event_id = put("dead")

    answer = api("POST", f"/v1/events/{event_id}/replay")

    body = answer.json()
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/events/{event_id}")
    assert (body["event_id"], body["state"], body["version"], body["enqueued"]) == (event_id, "queued", 4, True)
    view = api("GET", f"/v1/events/{event_id}?include=timeline,attempts").json()
    assert [entry["state"] for entry in view["timeline"]] == ["queued", "processing", "dead", "queued"]
    assert len(view["attempts"]) == 1, "what happened before is kept"
    with redis.Redis.from_url(ingest.broker_url) as broker:
        assert any(f'"{event_id}",4'.encode() in body for body in broker.hvals("dramatiq:events.msgs"))
    entries: Any = live.xrange(topic_keys("acme", f"event:{event_id}").stream)
    assert b'"version":4' in entries[-1][1][b"u"]
    assert audited(ingest, event_id) == [(operator_key.split("_")[1], "replay")]


def test_a_replayed_processed_event_is_a_new_one(ingest: Any, api: Api, put: Put) -> None:
    event_id = put("processed", subject="s", audience="a", data=None)

    answer = api("POST", f"/v1/events/{event_id}/replay")

    new_id = answer.json()["event_id"]
    assert (answer.status_code, new_id != event_id) == (202, True)
    new, old = (api("GET", f"/v1/events/{each}?include=data").json() for each in (new_id, event_id))
    assert (new["replay_of"], old["replay_of"]) == (event_id, None)
    assert (new["state"], old["state"]) == ("queued", "processed")
    assert new["event"] == old["event"] | {"id": new["event"]["id"]}
    assert [action for _, action in audited(ingest, event_id)] == ["replay"]


def test_other_data_is_kept_as_it_was_sent(api: Api, put: Put) -> None:
    event_id = put("processed")
    headers = {"Content-Type": "application/json"}
    body = b'{ "data" : {"b": 1.10, "a": "\\u00fc \\u0000"} }'

    new_id = api("POST", f"/v1/events/{event_id}/replay", content=body, headers=headers).json()["event_id"]

    assert api("GET", f"/v1/events/{new_id}/data").content == b'{"b": 1.10, "a": "\\u00fc \\u0000"}'


@pytest.mark.parametrize("data", [{"n": 2}, None, [], "ü"])
def test_a_copy_may_have_other_data(api: Api, put: Put, data: Any) -> None:
    event_id = put("processed")

    new_id = api("POST", f"/v1/events/{event_id}/replay", json={"data": data}).json()["event_id"]

    assert api("GET", f"/v1/events/{new_id}?include=data").json()["event"]["data"] == data
    assert api("GET", f"/v1/events/{event_id}?include=data").json()["event"]["data"] == {"n": 1}


def test_a_request_with_a_key_is_carried_out_once(ingest: Any, api: Api, put: Put) -> None:
    event_id = put("processed")
    path, headers = f"/v1/events/{event_id}/replay", {"Idempotency-Key": uuid4().hex}

    first, again = (api("POST", path, headers=headers).json() for _ in range(2))

    assert again == first | {"duplicate": True, "enqueued": False}
    assert code(api("POST", path, headers=headers, json={"data": "other"})) == (422, "id_conflict")
    assert len(audited(ingest, event_id)) == 1


@pytest.mark.parametrize("state", ["queued", "dead"])
def test_a_discarded_event_can_be_replayed_and_no_more(ingest: Any, api: Api, put: Put, state: str) -> None:
    event_id = put(state)

    discarded = api("POST", f"/v1/events/{event_id}/discard")

    assert (discarded.status_code, discarded.json()["state"], discarded.json()["enqueued"]) == (202, "discarded", False)
    assert code(api("POST", f"/v1/events/{event_id}/discard")) == (409, "event_discarded")
    assert api("POST", f"/v1/events/{event_id}/replay").json()["state"] == "queued"
    assert [action for _, action in audited(ingest, event_id)] == ["discard", "replay"]


def test_a_running_event_is_to_be_cancelled_and_told_so(ingest: Any, api: Api, put: Put) -> None:
    event_id = put("processing")

    asked = api("POST", f"/v1/events/{event_id}/cancel", headers={"Idempotency-Key": "k"})
    again = api("POST", f"/v1/events/{event_id}/cancel", headers={"Idempotency-Key": "k"})

    assert (asked.status_code, asked.json()["state"], asked.json()["duplicate"]) == (202, "processing", False)
    assert (again.status_code, again.json()["state"], again.json()["duplicate"]) == (202, "processing", True)
    assert asked.headers["Location"] == f"/v1/events/{event_id}"
    assert [action for _, action in audited(ingest, event_id)] == ["cancel"]
    with ingest.database.transaction() as session:
        row = session.execute(text("SELECT actor FROM cancel_request WHERE event_id = :id"), {"id": event_id}).one()
    assert row.actor


def test_an_event_that_waits_is_discarded_by_a_cancel(ingest: Any, api: Api, put: Put) -> None:
    event_id = put("queued")

    done = api("POST", f"/v1/events/{event_id}/cancel")

    assert (done.status_code, done.json()["state"], done.json()["version"]) == (202, "discarded", 3)
    timeline = api("GET", f"/v1/events/{event_id}?include=timeline").json()["timeline"]
    assert timeline[-1]["detail"] == {"reason": "cancelled"}
    assert [action for _, action in audited(ingest, event_id)] == ["cancel"]


@pytest.mark.parametrize(
    ("state", "action", "refusal"),
    [
        ("processed", "cancel", "event_processed"), ("dead", "cancel", "event_dead"),
        ("processing", "replay", "event_processing"), ("processing", "discard", "event_processing"),
        ("queued", "replay", "event_queued"), ("processed", "discard", "event_processed"),
    ],
)  # fmt: skip
def test_what_a_state_does_not_allow_is_409_and_changes_nothing(
    ingest: Any, api: Api, put: Put, state: str, action: str, refusal: str
) -> None:
    event_id = put(state)
    before = api("GET", f"/v1/events/{event_id}?include=timeline").json()

    assert code(api("POST", f"/v1/events/{event_id}/{action}")) == (409, refusal)

    assert api("GET", f"/v1/events/{event_id}?include=timeline").json() == before
    assert audited(ingest, event_id) == []


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (b'{"data": 1', (400, "invalid_json")), (b'{"date": 1}', (400, "invalid_request")), (b"[]", (400, "invalid_request")),
        (b'{"data": 1, "data": 2}', (400, "duplicate_name")), (b'{"data": "\\ud800"}', (400, "invalid_text")),
        (b'{"data": "' + b"x" * 20_000 + b'"}', (413, "too_large")),
    ],
)  # fmt: skip
def test_other_data_is_checked_as_an_events_data_is(api: Api, put: Put, body: bytes, refusal: tuple[int, str]) -> None:
    assert code(api("POST", f"/v1/events/{put('processed')}/replay", content=body)) == refusal


def test_a_dead_event_is_replayed_as_it_was_sent_or_not_at_all(api: Api, put: Put) -> None:
    event_id = put("dead")

    assert code(api("POST", f"/v1/events/{event_id}/replay", json={"data": 1})) == (422, "not_editable")

    assert api("GET", f"/v1/events/{event_id}").json()["state"] == "dead"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/events/{}/replay"), ("POST", "/v1/events/{}/discard"), ("GET", "/v1/events/{}/attempts"),
        ("GET", "/v1/replays/{}"), ("DELETE", "/v1/replays/{}"),
    ],
)  # fmt: skip
def test_what_is_another_tenants_or_nobodys_is_not_there(
    ingest: Any, api: Api, put: Put, method: str, path: str
) -> None:
    event_id = put("dead")
    replay_id = api("POST", "/v1/replays", json={"filter": {"error_type": "none"}}).json()["replay_id"]
    stranger = ingest.key("operate", "events:read", tenant="stranger")
    theirs = replay_id if "replays" in path else event_id

    for name, key in ((theirs, stranger), (NOBODY, stranger), ("no-uuid", stranger)):
        assert code(api(method, path.format(name), key=key)) == (404, "not_found")

    assert api("GET", f"/v1/events/{event_id}").json()["state"] == "dead"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"/v1/events/{NOBODY}/replay"), ("POST", f"/v1/events/{NOBODY}/discard"), ("POST", "/v1/replays"),
        ("GET", f"/v1/replays/{NOBODY}"), ("DELETE", f"/v1/replays/{NOBODY}"),
    ],
)  # fmt: skip
def test_acting_takes_the_scope_operate(ingest: Any, api: Api, method: str, path: str) -> None:
    assert code(api(method, path, key=ingest.key("events:write", "events:read"))) == (403, "forbidden")
    assert code(api(method, path, key="hf_none")) == (401, "unauthorized")


@pytest.mark.parametrize("path", ["/v1/events", "/v1/dead-letters", f"/v1/events/{NOBODY}/attempts"])
def test_looking_takes_the_scope_events_read(ingest: Any, api: Api, path: str) -> None:
    assert code(api("GET", path, key=ingest.key("events:write"))) == (403, "forbidden")


def test_dead_letters_are_grouped_and_each_group_says_how_to_replay_it(ingest: Any, api: Api, put: Put) -> None:
    key = ingest.key("operate", "events:read", "events:write", tenant="graves")

    def bury_one(error: str) -> str:
        return put("dead", error=error)

    error = f"E{uuid4().hex}"
    newest = [bury_one(error) for _ in range(3)][-1]

    groups = {
        group["error_type"]: group for group in api("GET", "/v1/dead-letters", params={"limit": 200}).json()["items"]
    }

    group = groups[error]
    assert (group["handler"], group["fingerprint"]) == ("h", "f")
    assert (group["count"], group["count_last_hour"]) == (3, 3)
    assert group["sample"] == {"event_id": newest, "type": "test.done", "message": "no such key"}
    dry = api("POST", "/v1/replays", json={"filter": group["filter"], "dry_run": True})
    assert (dry.status_code, dry.json()) == (200, {"count": 3})
    assert api("GET", "/v1/dead-letters", key=key).json() == {"items": []}


def test_a_key_of_a_replay_without_other_data_is_refused_with_some(api: Api, put: Put) -> None:
    for state in ("dead", "processed"):
        path, headers = f"/v1/events/{put(state)}/replay", {"Idempotency-Key": uuid4().hex}
        assert api("POST", path, headers=headers).status_code == 202

        assert code(api("POST", path, headers=headers, json={"data": "other"})) == (422, "id_conflict")


def test_a_discard_takes_no_body(api: Api, put: Put) -> None:
    path = f"/v1/events/{put('dead')}/discard"

    assert code(api("POST", path, json={"data": 1})) == (400, "invalid_request")

    assert api("POST", path, json={}).status_code == 202
