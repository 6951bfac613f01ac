"""Discards of many events over HTTP: begun, shown, cancelled, repeated by key, and refused."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

pytestmark = pytest.mark.xdist_group("ingest-operate")  # one process for all of them

Api = Callable[..., httpx.Response]
Put = Callable[..., str]


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


def test_a_discard_is_counted_begun_shown_and_cancelled(api: Api, put: Put, operator_key: str) -> None:
    error = f"E{uuid4().hex}"
    event_ids = [put("dead", error=error) for _ in range(3)]
    wanted = {"filter": {"error_type": error}}
    count = api("POST", "/v1/discards", json=wanted | {"dry_run": True})

    begun = api("POST", "/v1/discards", json=wanted)

    body = begun.json()
    assert (count.status_code, count.json()) == (200, {"count": 3})
    assert (begun.status_code, begun.headers["Location"]) == (202, f"/v1/discards/{body['discard_id']}")
    assert (body["state"], body["total"], body["remaining"], body["discarded"]) == ("running", 3, 3, 0)
    assert (body["created_by"], body["created_by_name"]) == (operator_key.split("_")[1], "test")
    assert body["filter"] == {"state": "dead", "error_type": error}
    assert api("GET", begun.headers["Location"]).json() == body
    cancelled = [api("DELETE", begun.headers["Location"]) for _ in range(2)]
    assert [(each.status_code, each.json()["state"]) for each in cancelled] == [(200, "cancelled")] * 2
    assert {api("GET", f"/v1/events/{each}").json()["state"] for each in event_ids} == {"dead"}
    entries = api("GET", "/v1/audit", params={"replay_id": body["discard_id"]}).json()["items"]
    assert [entry["action"] for entry in entries] == ["cancel_discard", "start_discard"]


def test_a_discard_that_is_done_cannot_be_cancelled(api: Api) -> None:
    done = api("POST", "/v1/discards", json={"filter": {"error_type": "none"}}).json()

    assert (done["state"], done["total"]) == ("done", 0)
    assert code(api("DELETE", done["links"]["self"])) == (409, "discard_done")


def test_events_that_wait_are_discarded_too(api: Api, put: Put) -> None:
    type_ = f"t.{uuid4().hex}"
    put("queued", type=type_)

    counts = [
        api("POST", "/v1/discards", json={"filter": {"type": type_, "state": state}, "dry_run": True}).json()["count"]
        for state in ("queued", "failed", "dead")
    ]

    assert counts == [1, 0, 0]


def test_events_that_run_are_a_set_too_which_a_viewer_cannot_begin(
    ingest: Any, api: Api, put: Put, operator_key: str
) -> None:
    type_ = f"t.{uuid4().hex}"
    event_ids = {put("processing", type=type_) for _ in range(2)}
    put("queued", type=type_)
    wanted = {"filter": {"type": type_, "state": "processing"}}

    viewer = ingest.key("events:read", "events:write")
    assert code(api("POST", "/v1/discards", json=wanted, key=viewer)) == (403, "forbidden")
    counted = api("POST", "/v1/discards", json=wanted | {"dry_run": True})
    begun = api("POST", "/v1/discards", json=wanted)

    assert counted.json() == {"count": 2}
    assert (begun.status_code, begun.json()["total"], begun.json()["filter"]) == (202, 2, wanted["filter"])
    with ingest.database.transaction() as session:
        frozen = session.execute(
            text("SELECT event_id, version FROM replay_item WHERE job_id = :id"), {"id": begun.json()["discard_id"]}
        )
        assert {(str(each.event_id), each.version) for each in frozen} == {(each, 2) for each in event_ids}
    [entry] = api("GET", "/v1/audit", params={"replay_id": begun.json()["discard_id"]}).json()["items"]
    assert (entry["action"], entry["actor"]["id"]) == ("start_discard", operator_key.split("_")[1])
    assert entry["detail"] == {"filter": {"type": type_, "state": "processing"}, "total": 2}
    refused = api("POST", "/v1/replays", json=wanted | {"rate_per_s": 1})
    assert code(refused) == (400, "invalid_request"), "what runs is not replayed"


def test_a_discard_asked_for_twice_with_one_key_is_one_and_no_replay(api: Api) -> None:
    headers = {"Idempotency-Key": uuid4().hex}

    def discard(filter_: dict[str, str]) -> httpx.Response:
        return api("POST", "/v1/discards", json={"filter": filter_}, headers=headers)

    assert len({discard({"type": "none"}).json()["discard_id"] for _ in range(2)}) == 1
    assert code(discard({"type": "other"})) == (422, "id_conflict")
    replay = {"filter": {"type": "none"}, "rate_per_s": 1000}
    assert code(api("POST", "/v1/replays", json=replay, headers=headers)) == (422, "id_conflict")


def test_a_discard_is_no_replay_and_the_other_way_round(ingest: Any, api: Api, put: Put) -> None:
    error = f"E{uuid4().hex}"
    put("dead", error=error)
    wanted = {"filter": {"error_type": error}}
    discard = api("POST", "/v1/discards", json=wanted).json()["discard_id"]
    replay = api("POST", "/v1/replays", json=wanted).json()["replay_id"]
    stranger = ingest.key("operate", tenant="other")

    for method in ("GET", "DELETE"):
        assert code(api(method, f"/v1/replays/{discard}")) == (404, "not_found")
        assert code(api(method, f"/v1/discards/{replay}")) == (404, "not_found")
        assert code(api(method, f"/v1/discards/{discard}", key=stranger)) == (404, "not_found")
    for address in (f"/v1/discards/{discard}", f"/v1/replays/{replay}"):
        assert api("GET", address).json()["state"] == "running"
        api("DELETE", address)


NOBODY = "0198c0de-0000-7000-8000-000000000000"


@pytest.mark.parametrize(("method", "path"), [("POST", ""), ("GET", f"/{NOBODY}"), ("DELETE", f"/{NOBODY}")])
def test_a_discard_takes_the_scope_operate(ingest: Any, api: Api, method: str, path: str) -> None:
    reader = ingest.key("events:read", "events:write")

    assert code(api(method, f"/v1/discards{path}", key=reader, json={"filter": {}})) == (403, "forbidden")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b"{", ""), (b"{}", "/filter"), (b'{"filter": {"state": "processed"}}', "/filter/state"),
        (b'{"filter": {"state": "discarded"}}', "/filter/state"), (b'{"filter": {"sate": "dead"}}', "/filter/sate"),
        (b'{"filter": {}, "rate_per_s": 1}', "/rate_per_s"), (b'{"filter": {}, "dry_run": "perhaps"}', "/dry_run"),
    ],
)  # fmt: skip
def test_a_discard_that_cannot_be_says_where_and_what_to_send(api: Api, body: bytes, pointer: str) -> None:
    answer = api("POST", "/v1/discards", content=body)

    assert code(answer) == (400, "invalid_request")
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]
    assert '"dry_run": true' in answer.json()["detail"]
