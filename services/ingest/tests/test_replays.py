"""Replays of many events over HTTP: begun, shown, cancelled, repeated by key, and refused."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

pytestmark = pytest.mark.xdist_group("ingest-operate")  # one process for all of them

Api = Callable[..., httpx.Response]
Put = Callable[..., str]


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


def test_a_replay_is_begun_shown_and_cancelled(api: Api, put: Put, operator_key: str) -> None:
    error = f"E{uuid4().hex}"
    event_ids = [put("dead", error=error) for _ in range(3)]
    wanted = {"filter": {"error_type": error}, "rate_per_s": 0.5}
    count = api("POST", "/v1/replays", json=wanted | {"dry_run": True}).json()["count"]

    begun = api("POST", "/v1/replays", json=wanted)

    body = begun.json()
    assert (begun.status_code, begun.headers["Location"]) == (202, f"/v1/replays/{body['replay_id']}")
    assert (body["state"], body["total"], body["remaining"], body["created_by"]) == (
        "running", count, 3, operator_key.split("_")[1],
    )  # fmt: skip
    assert body["filter"] == {"state": "dead", "error_type": error}
    assert api("GET", begun.headers["Location"]).json() == body
    cancelled = [api("DELETE", begun.headers["Location"]) for _ in range(2)]
    assert [(each.status_code, each.json()["state"]) for each in cancelled] == [(200, "cancelled")] * 2
    assert {api("GET", f"/v1/events/{each}").json()["state"] for each in event_ids} == {"dead"}


def test_replays_are_listed_newest_first_page_by_page_and_by_state(api: Api) -> None:
    ids = [
        api("POST", "/v1/replays", json={"filter": {"error_type": uuid4().hex}}).json()["replay_id"] for _ in range(3)
    ]

    first = api("GET", "/v1/replays", params={"limit": 2, "state": "done"}).json()
    second = api("GET", "/v1/replays", params={"limit": 2, "cursor": first["next_cursor"]}).json()

    assert [each["replay_id"] for each in first["items"]] == [ids[2], ids[1]]
    assert first["next_cursor"] == ids[1]
    assert second["items"][0] == api("GET", f"/v1/replays/{ids[0]}").json()
    running = api("GET", "/v1/replays", params={"state": "running", "limit": 200}).json()["items"]
    assert not {each["replay_id"] for each in running} & set(ids)


@pytest.mark.parametrize("query", [{"state": "over"}, {"limit": "0"}, {"cursor": "x"}, {"tenant": "other"}])
def test_a_wrong_list_of_replays_says_what_it_takes(api: Api, query: dict[str, str]) -> None:
    refused = api("GET", "/v1/replays", params=query)

    assert code(refused) == (400, "invalid_request")
    assert [fault["parameter"] for fault in refused.json()["errors"]] == list(query)


def test_a_replay_that_is_done_can_not_be_cancelled(api: Api) -> None:
    done = api("POST", "/v1/replays", json={"filter": {"error_type": "none"}}).json()

    assert (done["state"], done["total"]) == ("done", 0)
    assert code(api("DELETE", done["links"]["self"])) == (409, "replay_done")


def test_a_replay_asked_for_twice_with_one_key_is_one(api: Api) -> None:
    headers = {"Idempotency-Key": uuid4().hex}

    ids = {api("POST", "/v1/replays", json={"filter": {}}, headers=headers).json()["replay_id"] for _ in range(2)}

    assert len(ids) == 1
    wrong = api("POST", "/v1/replays", json={"filter": {}}, headers={"Idempotency-Key": "no spaces"})
    assert code(wrong) == (400, "invalid_idempotency_key")


@pytest.mark.parametrize(
    "other",
    [
        {"filter": {"type": "b"}}, {"filter": {"type": "a", "subject": "s"}}, {"filter": {}},
        {"filter": {"type": "a", "state": "discarded"}}, {"filter": {"type": "a"}, "rate_per_s": 11},
        {"filter": {"type": "a", "received_after": "2026-01-01T00:00:00Z"}},
    ],
)  # fmt: skip
def test_a_key_of_another_replay_is_refused(api: Api, other: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": uuid4().hex}
    first = api("POST", "/v1/replays", json={"filter": {"type": "a"}}, headers=headers).json()

    assert code(api("POST", "/v1/replays", json=other, headers=headers)) == (422, "id_conflict")

    same = {"filter": {"type": "a", "state": "dead"}, "rate_per_s": 10.0}
    assert api("POST", "/v1/replays", json=same, headers=headers).json() == first, (
        "spelled in another way, yet the same"
    )


def test_a_key_of_a_replay_with_a_time_is_known_again_whatever_the_offset(api: Api) -> None:
    headers = {"Idempotency-Key": uuid4().hex}

    ids = {
        api("POST", "/v1/replays", json={"filter": {"received_after": moment}}, headers=headers).json()["replay_id"]
        for moment in ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00")
    }

    assert len(ids) == 1


def test_the_filter_of_a_replay_is_shown_as_it_is_asked_for(api: Api) -> None:
    filter_ = {"state": "dead", "id": "1", "source": "/nowhere"}

    assert api("POST", "/v1/replays", json={"filter": filter_}).json()["filter"] == filter_


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b"{", ""), (b"{}", "/filter"), (b'{"filter": {"state": "queued"}}', "/filter/state"),
        (b'{"filter": {"sate": "dead"}}', "/filter/sate"), (b'{"filter": {}, "rate_per_s": 0}', "/rate_per_s"),
        (b'{"filter": {}, "rate_per_s": 1001}', "/rate_per_s"), (b'{"filter": {}, "rate_per_s": NaN}', "/rate_per_s"),
        (b'{"filter": {}, "rate_per_s": 1e-300}', "/rate_per_s"), (b'{"filter": {}, "rate_per_s": 1e308}', "/rate_per_s"),
        (b'{"filter": {}, "rate_per_s": 1e400}', "/rate_per_s"), (b'{"filter": {}, "rate_per_s": -Infinity}', "/rate_per_s"),
        (b'{"filter": {}, "rate_per_s": -0.0}', "/rate_per_s"), (b'{"filter": {}, "rate_per_s": 0.0099}', "/rate_per_s"),
        (b'{"filter": {}, "rate_per_s": 18446744073709551616}', "/rate_per_s"),
        (b'{"filter": {"received_after": "0001-01-01T00:00:00+23:59"}}', "/filter/received_after"),
        (b'{"filter": {"received_before": 1e300}}', "/filter/received_before"),
        (b'{"filter": {"type": "\\u0000"}}', "/filter/type"), (b'{"filter": {}, "dry_run": "perhaps"}', "/dry_run"),
    ],
)  # fmt: skip
def test_a_replay_that_can_not_be_says_where_and_what_to_send(api: Api, body: bytes, pointer: str) -> None:
    answer = api("POST", "/v1/replays", content=body)

    assert code(answer) == (400, "invalid_request")
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]
    assert '"rate_per_s": 10' in answer.json()["detail"]
