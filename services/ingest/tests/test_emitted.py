"""What handlers emitted, as the API shows it: by their event, and in groups."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from holdfast.domain.event import NewGroup
from holdfast.runtime.ids import uuid7
from holdfast.storage.groups import record_group

pytestmark = pytest.mark.xdist_group("ingest-operate")  # one process for all of them

NOBODY = "01a20ce1-a999-7253-85bb-3c3e269307a2"
Api = Callable[..., httpx.Response]
Put = Callable[..., str]


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_what_a_handler_emitted_is_listed_by_its_event(ingest: Any, api: Api, put: Put) -> None:
    parent_id, child_id, _ = put("processed"), put("dead"), put("dead")
    with ingest.database.transaction() as session:
        made = text("UPDATE event SET parent_id = :parent_id WHERE id = :id")
        session.execute(made, {"parent_id": parent_id, "id": child_id})

    [item] = api("GET", "/v1/events", params={"parent_id": parent_id.upper()}).json()["items"]

    assert (item["event_id"], item["parent_id"]) == (child_id, parent_id)
    assert api("GET", f"/v1/events/{parent_id}").json()["parent_id"] is None
    assert api("POST", "/v1/replays", json={"filter": {"parent_id": parent_id}, "dry_run": True}).status_code == 200
    assert code(api("GET", "/v1/events?parent_id=7")) == (400, "invalid_request")


def test_groups_of_an_event_say_how_far_they_are(ingest: Any, api: Api, put: Put) -> None:
    parent_id = put("processed")
    with ingest.database.transaction() as session:
        group = NewGroup(id=uuid7(), tenant="acme", parent_id=UUID(parent_id), type="all.done")
        record_group(session, group, [UUID(put()), UUID(put())])

    [item] = api("GET", f"/v1/events/{parent_id}/groups").json()["items"]

    assert item | {"created_at": ""} == {
        "group_id": str(group.id), "type": "all.done", "size": 2, "open": 2, "processed": 0, "dead": 0, "discarded": 0,
        "created_at": "", "completed_at": None,
    }  # fmt: skip
    assert api("GET", f"/v1/events/{NOBODY}/groups").status_code == 404


def test_steps_of_an_event_are_listed_and_their_results_are_for_operators(ingest: Any, api: Api, put: Put) -> None:
    event_id = put("dead")
    with ingest.database.transaction() as session:
        stored = text(
            "INSERT INTO event_step (event_id, handler, name, lease_token, attempt, result, wake_at, duration_ms, stored_at)"
            " VALUES (:id, 'h', 'charge', :id, 1, '{\"id\": 7}', NULL, 12, '2026-11-24T09:00Z'),"
            " (:id, 'h', 'a day', :id, 1, NULL, '2026-11-25T09:00Z', 0, '2026-11-24T09:01Z')"
        )
        session.execute(stored, {"id": event_id})

    charge, sleep = api("GET", f"/v1/events/{event_id}/steps").json()["items"]

    assert (charge["name"], charge["result"], charge["wake_at"]) == ("charge", {"id": 7}, None)
    assert (sleep["name"], sleep["wake_at"][:19], "result" in sleep) == ("a day", "2026-11-25T09:00:00", False)
    assert api("GET", f"/v1/events/{NOBODY}/steps").status_code == 404
