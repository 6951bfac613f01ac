"""``GET /v1/audit``: every route that changes something leaves an entry, which says who, from where, and in which request."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

pytestmark = pytest.mark.xdist_group("ingest-audit")

Api = Callable[..., httpx.Response]
Put = Callable[..., str]


@pytest.fixture(scope="module")
def ingest_settings() -> dict[str, str]:
    """The tests' own address is a trusted proxy here."""
    return {"HOLDFAST_TRUSTED_PROXIES": '["127.0.0.0/8"]'}


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


def newest(api: Api, **wanted: str) -> dict[str, Any]:
    entry: dict[str, Any] = api("GET", "/v1/audit", params=wanted).json()["items"][0]
    return entry


SENT = {"X-Request-ID": "request-of-this-test", "X-Forwarded-For": "192.0.2.66, 203.0.113.9"}

CHANGES: dict[str, Callable[[Api, Put], httpx.Response]] = {
    "replay": lambda api, put: api("POST", f"/v1/events/{put('dead')}/replay", headers=SENT),
    "discard": lambda api, put: api("POST", f"/v1/events/{put('dead')}/discard", headers=SENT),
    "start_replay": lambda api, _: api("POST", "/v1/replays", json={"filter": {"type": "none"}}, headers=SENT),
    "revoke_subject": lambda api, _: api("POST", "/v1/tokens/revoke", json={"sub": "user-42"}, headers=SENT),
    "revoke_token": lambda api, _: api("POST", "/v1/tokens/revoke", json={"jti": "0123456789"}, headers=SENT),
}


@pytest.mark.parametrize("action", CHANGES)
def test_what_a_route_changes_is_noted_with_who_and_from_where(
    api: Api, put: Put, operator_key: str, action: str
) -> None:
    answer = CHANGES[action](api, put)

    assert answer.is_success, answer.text
    entry = newest(api, action=action)
    assert entry["actor"] == {"kind": "key", "id": operator_key.split("_")[1], "name": "test"}
    assert (entry["origin"], entry["request_id"]) == ("203.0.113.9", "request-of-this-test")


def test_a_cancelled_replay_is_noted(api: Api, put: Put) -> None:
    put("dead")
    begun = api("POST", "/v1/replays", json={"filter": {}, "rate_per_s": 0.01}).json()
    api("DELETE", begun["links"]["self"])

    entries = api("GET", "/v1/audit", params={"replay_id": begun["replay_id"]}).json()["items"]

    assert [entry["action"] for entry in entries] == ["cancel_replay", "start_replay"]
    assert {entry["origin"] for entry in entries} == {"127.0.0.1"}, "no proxy has said anything else"
    assert begun["created_by_name"] == "test"


def test_pages_follow_each_other(api: Api, put: Put) -> None:
    event_id = put("dead")
    for action in ("discard", "replay", "discard"):
        assert api("POST", f"/v1/events/{event_id}/{action}").status_code == 202

    pages, cursor = [], ""
    while cursor is not None:
        page = api("GET", "/v1/audit", params={"event_id": event_id, "limit": 2, "cursor": cursor}).json()
        pages.append([entry["action"] for entry in page["items"]])
        cursor = page["next_cursor"]

    assert pages == [["discard", "replay"], ["discard"]]


def test_another_tenant_sees_its_own_entries_alone(ingest: Any, api: Api, put: Put) -> None:
    event_id = put("dead")
    api("POST", f"/v1/events/{event_id}/discard")
    entry = newest(api, event_id=event_id)
    stranger = ingest.key("operate", tenant="other")

    for wanted in ({"event_id": event_id}, {"actor": "test"}, {"cursor": entry["id"]}, {"action": "discard"}):
        items = api("GET", "/v1/audit", params=wanted, key=stranger).json()["items"]
        assert all(each["event_id"] != event_id and each["action"] == "create_key" for each in items), wanted


def test_the_audit_takes_the_scope_operate(ingest: Any, api: Api) -> None:
    assert code(api("GET", "/v1/audit", key=ingest.key("events:read", "events:write"))) == (403, "forbidden")


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("actoin=replay", "actoin"), ("event_id=x", "event_id"), ("since=yesterday", "since"), ("limit=201", "limit"),
        ("cursor=-1", "cursor"), ("cursor=9223372036854775808", "cursor"), ("cursor=x", "cursor"), ("actor=a%00", "actor"),
        (f"action={'a' * 1025}", "action"), ("action=a&action=b", "action"),
    ],
)  # fmt: skip
def test_a_filter_that_cannot_be_is_named(api: Api, query: str, parameter: str) -> None:
    answer = api("GET", f"/v1/audit?{query}")

    assert code(answer) == (400, "invalid_request")
    assert [fault["parameter"] for fault in answer.json()["errors"]] == [parameter]


def test_an_empty_answer_is_a_page(api: Api) -> None:
    assert api("GET", "/v1/audit", params={"actor": uuid4().hex}).json() == {"items": [], "next_cursor": None}
