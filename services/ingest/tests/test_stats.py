"""What happened lately over HTTP: every tenant's own, from counters."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from holdfast.domain.declared import DeclaredHandler
from holdfast.domain.limits import Concurrency, Rate
from holdfast.domain.pauses import PauseKind
from holdfast.storage import nodes, pauses
from holdfast.storage.audit import Actor
from holdfast.storage.counting import count_page
from holdfast.storage.nodes import Identity
from holdfast.storage.served import wait_for_handler

pytestmark = pytest.mark.xdist_group("ingest-stats")  # one process for all of them

Api = Callable[..., httpx.Response]
Put = Callable[..., str]


def count(ingest: Any) -> None:
    ingest.database.call(count_page, limit=10_000)


def test_stats_tell_how_it_stands_and_what_happened(ingest: Any, api: Api, put: Put) -> None:
    before = api("GET", "/v1/stats").json()["last_hour"]
    put("processed")
    put("dead")
    put()
    behind = api("GET", "/v1/stats").json()
    count(ingest)

    body = api("GET", "/v1/stats").json()

    assert behind["last_hour"] == before
    assert behind["lag_seconds"] > 0
    assert body["lag_seconds"] == 0
    grown = {name: body["last_hour"][name] - before[name] for name in before}
    assert grown == {
        "accepted": 3, "processed": 1, "failed": 1, "retried": 0, "dead": 1, "discarded": 0, "replayed": 0, "lost": 0,
    }  # fmt: skip
    assert body["per_second"]["accepted"] > 0
    assert body["events"]["queued"] >= 1
    assert body["events"]["dead"] >= 1
    assert body["oldest_due"]["is_at_most"] is False
    assert body["window"]["total"] == body["last_hour"]
    assert len(body["window"]["series"]) in (60, 61)
    assert body["window"]["series"][0]["at"] == body["window"]["since"]


@pytest.mark.parametrize(("window", "step", "points"), [("day", 600, 144), ("quarter", 86_400, 90)])
def test_a_longer_window_has_longer_steps(api: Api, window: str, step: int, points: int) -> None:
    body = api("GET", "/v1/stats", params={"window": window}).json()["window"]

    assert (body["name"], body["step_seconds"]) == (window, step)
    assert len(body["series"]) in (points, points + 1)


def test_handlers_are_told_with_their_times_and_types_nobody_serves(ingest: Any, api: Api, put: Put) -> None:
    put("processed")
    waiting = put(type="com.typo")
    ingest.database.call(wait_for_handler, [UUID(waiting)], look_again_seconds=60)
    count(ingest)

    body = api("GET", "/v1/handlers").json()

    [row] = [item for item in body["items"] if item["name"] == "h"]
    assert row["kind"] == "handler"
    assert row["processed"] >= 1
    assert row["per_second"] > 0
    assert row["run"]["p50_ms"] <= row["run"]["p95_ms"]
    assert row["last_seen_at"].endswith("Z")
    [unserved] = body["unserved"]
    assert unserved.pop("oldest_seconds") >= 0
    assert unserved == {"type": "com.typo", "events": 1, "is_at_least": False, "is_served": False}


def test_operators_see_handlers_as_processors_declare_them_and_what_is_paused(ingest: Any, api: Api, put: Put) -> None:
    who = Identity(
        uuid4().hex[:12], "processor", "box", 10, "1.0", "worker-0", 11, slots=8,
        handlers=(DeclaredHandler("charge", 7, "", Concurrency(5, key="/account"), Rate(9, per=60)), DeclaredHandler("z")),
    )  # fmt: skip
    ingest.database.call(nodes.enter, who, is_drained=False)
    first = put()
    with ingest.database.transaction() as session:
        session.execute(
            text("UPDATE processing_state SET waits_in = 'rate:charge', unserved_type = '', waiting_since = now() "
                 "WHERE event_id = :id"), {"id": first},
        )  # fmt: skip
        paused, _ = pauses.pause(session, Actor("other", "k", "ann"), PauseKind.POOL, "default", note_text="away")

    found = api("GET", "/v1/handlers").json()["declared"]

    pause = found[0].pop("pause")
    assert found[0] == {
        "name": "charge", "priority": 7, "pool": "default", "limit": {"count": 5, "key": "/account"},
        "rate": {"count": 9, "per": 60, "key": None}, "running": 0, "waiting": 1, "is_at_least": False,
    }  # fmt: skip
    assert [pause[name] for name in ("pause_id", "kind", "note", "paused_by")] == [
        str(paused.id),
        "pool",
        "away",
        "ann",
    ]
    assert (found[1]["name"], found[1]["limit"], found[1]["running"], found[1]["waiting"]) == ("z", None, None, None)
    assert api("GET", "/v1/handlers", key=ingest.key("events:read")).json()["declared"] == []
    ingest.database.call(nodes.leave, who)
    with ingest.database.transaction() as session:
        session.execute(text("DELETE FROM pause"))


def test_a_tenant_sees_nothing_of_another(ingest: Any, api: Api, put: Put) -> None:
    put("dead")
    ingest.database.call(wait_for_handler, [UUID(put(type="com.secret"))], look_again_seconds=60)
    count(ingest)
    stranger = ingest.key("events:read", tenant="stranger")

    stats = api("GET", "/v1/stats", key=stranger).json()
    handlers = api("GET", "/v1/handlers", key=stranger).json()

    assert set(stats["last_hour"].values()) == {0}
    assert set(stats["events"].values()) == {0}
    assert stats["oldest_due"] == {"seconds": 0, "is_at_most": False}
    assert handlers["items"] == handlers["unserved"] == []


@pytest.mark.parametrize("path", ["/v1/stats", "/v1/handlers"])
def test_what_is_asked_wrongly_is_refused_with_what_it_takes(ingest: Any, api: Api, path: str) -> None:
    wrong = api("GET", path, params={"window": "week"})
    unknown = api("GET", path, params={"since": "yesterday"})
    forbidden = api("GET", path, key=ingest.key("events:write"))

    assert (wrong.status_code, wrong.json()["code"]) == (400, "invalid_request")
    [fault] = wrong.json()["errors"]
    assert (fault["parameter"], fault["received"]) == ("window", "'week'")
    assert "hour, day or quarter" in fault["detail"]
    assert unknown.status_code == 400
    assert forbidden.status_code == 403
