"""What runs where over HTTP, draining, and why an event waits, with every refusal."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from holdfast.storage import nodes
from holdfast.storage.nodes import Beat, Identity, Running

pytestmark = pytest.mark.xdist_group("ingest-workers")  # one process for all of them

Api = Callable[..., httpx.Response]
Put = Callable[..., str]

UNKNOWN = "000000000000"


@pytest.fixture
def admin_key(ingest: Any) -> str:
    return str(ingest.key("admin"))


@pytest.fixture
def who(ingest: Any) -> Iterator[Identity]:
    """A worker of a processor that has just spoken, and is gone after the test."""
    who = Identity(
        uuid4().hex[:12], "processor", "box", 10, "1.0", "worker-0", 11, slots=8, types=("test.*", "order.placed")
    )
    ingest.database.call(nodes.enter, who, is_drained=False)
    yield who
    ingest.database.call(nodes.leave, who)


def say(ingest: Any, who: Identity, **said: Any) -> None:
    assert nodes.beat(ingest.database, who, Beat(**said), polled_seconds=1.0)


def listed(api: Api, who: Identity, **options: Any) -> dict[str, Any]:
    answer = api("GET", "/v1/workers", **options)
    assert answer.status_code == 200, answer.text
    [found] = [each for each in answer.json()["items"] if each["node_id"] == who.node_id]
    return dict(found)


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


def test_a_node_is_listed_with_all_that_it_said(ingest: Any, api: Api, who: Identity) -> None:
    ours = Running(str(uuid4()), "acme", "order", 2, "2026-11-28T09:30:00+00:00")
    theirs = replace(ours, event_id=str(uuid4()), tenant="other")
    say(ingest, who, busy=2, running=(ours, theirs))

    node = listed(api, who)

    assert node["state"] == "active"
    assert [node[name] for name in ("service", "host", "pid", "version", "slots", "busy", "types")] == [
        "processor", "box", 10, "1.0", 8, 2, ["order.placed", "test.*"]
    ]  # fmt: skip
    assert node["last_poll_at"] < node["last_beat_at"]
    [worker] = node["workers"]
    assert worker["running"] == [
        {"event_id": ours.event_id, "handler": "order", "attempt": 2, "since": "2026-11-28T09:30:00Z"}
    ]
    assert worker["running_for_others"] == 1
    assert theirs.event_id not in str(node), "another tenant's event has no name here"
    assert api("GET", f"/v1/workers/{who.node_id}").json() == node


def test_a_node_that_has_said_nothing_for_long_is_stale_and_has_no_slots(ingest: Any, api: Api, who: Identity) -> None:
    with ingest.database.transaction() as session:
        session.execute(text("UPDATE node_worker SET beat_at = now() - interval '31 s'"))

    node = listed(api, who)

    assert (node["state"], node["slots"], node["workers"][0]["is_stale"]) == ("stale", 0, True)


def test_draining_is_for_administrators_and_is_audited(
    ingest: Any, api: Api, who: Identity, admin_key: str, operator_key: str
) -> None:
    path = f"/v1/workers/{who.node_id}"
    for verb in ("drain", "undrain"):
        assert code(api("POST", f"{path}/{verb}", key=operator_key)) == (403, "forbidden")
    assert code(api("GET", "/v1/workers", key=ingest.key("events:read"))) == (403, "forbidden")

    answer = api("POST", f"{path}/drain", key=admin_key)

    assert (answer.status_code, answer.json()["state"]) == (202, "draining")
    assert answer.json()["drained_by"] == admin_key.split("_")[1]
    assert listed(api, who)["drained_by"] is None, "whose key it was is for administrators"
    say(ingest, who, is_draining=True, busy=1)
    assert listed(api, who)["state"] == "draining"
    say(ingest, who, is_draining=True)
    assert listed(api, who)["state"] == "drained"
    since = listed(api, who)["drain_since"]
    assert api("POST", f"{path}/drain", key=admin_key).json()["drain_since"] == since, "again it changes nothing"
    assert api("POST", f"{path}/undrain", key=admin_key).json()["state"] == "active"
    assert api("POST", f"{path}/undrain", key=admin_key).status_code == 202
    with ingest.database.transaction() as session:
        rows = session.execute(
            text("SELECT tenant, actor, action FROM audit_log WHERE detail->>'node' = :id ORDER BY id"),
            {"id": who.node_id},
        )
        actor = admin_key.split("_")[1]
        assert [tuple(row) for row in rows] == [("acme", actor, "drain_node"), ("acme", actor, "undrain_node")]


@pytest.mark.parametrize("name", [UNKNOWN, "x", "%00", "0" * 5000, "ABCDEFABCDEF"])
def test_a_node_that_is_not_there_is_not_found(api: Api, admin_key: str, name: str) -> None:
    assert code(api("GET", f"/v1/workers/{name}")) == (404, "not_found")
    assert code(api("POST", f"/v1/workers/{name}/drain", key=admin_key)) == (404, "not_found")


def test_what_takes_no_events_cannot_be_drained(ingest: Any, api: Api, admin_key: str, who: Identity) -> None:
    other = replace(who, node_id=uuid4().hex[:12], service="maintenance")
    ingest.database.call(nodes.enter, other, is_drained=False)

    answer = api("POST", f"/v1/workers/{other.node_id}/drain", key=admin_key)

    assert code(answer) == (409, "not_drainable")
    assert "maintenance" in answer.json()["detail"]
    ingest.database.call(nodes.leave, other)


def test_a_body_has_no_meaning_here(api: Api, admin_key: str, who: Identity) -> None:
    answer = api("POST", f"/v1/workers/{who.node_id}/drain", key=admin_key, json={"force": True})

    assert code(answer) == (400, "invalid_request")


def test_an_open_event_says_why_it_waits(ingest: Any, api: Api, put: Put, who: Identity) -> None:
    say(ingest, who, busy=3)
    event_id = put(type="order.plcaed")

    waiting = api("GET", f"/v1/events/{event_id}").json()["waiting"]

    assert (waiting["reason"], waiting["did_you_mean"]) == ("no_handler", "order.placed")
    assert waiting["since"].endswith("Z")
    assert "did you mean order.placed?" in waiting["summary"]


def test_the_names_of_machines_are_for_operators(ingest: Any, api: Api, put: Put, who: Identity) -> None:
    event_id = put(type="test.done")
    with ingest.database.transaction() as session:
        session.execute(text("UPDATE node SET drain_since = now() WHERE id = :id"), {"id": who.node_id})

    waiting = api("GET", f"/v1/events/{event_id}").json()["waiting"]
    assert (waiting["reason"], waiting["nodes"]) == ("drained", [who.node_id])
    waiting = api("GET", f"/v1/events/{event_id}", key=ingest.key("events:read")).json()["waiting"]

    assert waiting["reason"] == "drained"
    assert "nodes" not in waiting


def test_an_event_that_is_done_with_and_lists_say_nothing_of_it(api: Api, put: Put) -> None:
    event_id = put("dead", source="/none")

    assert "waiting" not in api("GET", f"/v1/events/{event_id}").json()
    assert all("waiting" not in each for each in api("GET", "/v1/events", params={"source": "/none"}).json()["items"])
