"""What operators do at the console beside replays: nodes, discards of a group; and why an event waits."""

import html
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from tests.contract.console import audited, hidden, seen

from holdfast.storage import claims, nodes, served
from holdfast.storage.nodes import Beat, Identity, Running

HOSTILE = "<script>alert(1)</script>"

Put = Callable[..., str]
Visitor = Callable[..., Any]


@pytest.fixture(scope="module")
def ingest_settings() -> dict[str, str]:
    return {
        "HOLDFAST_CONSOLE_SECRET": "a secret of the console's tests, long enough",
        "HOLDFAST_BACKLOG_LIMIT_SECONDS": "7200",
    }


@pytest.fixture
def who(ingest: Any) -> Iterator[Identity]:
    """A worker of a processor that has just spoken, and is gone after the test."""
    who = Identity(
        uuid4().hex[:12],
        "processor",
        f"box{HOSTILE}",
        10,
        "1.2.3",
        "worker-0",
        11,
        slots=8,
        types=("test.*", "order.placed"),
    )
    ingest.database.call(nodes.enter, who, is_drained=False)
    yield who
    ingest.database.call(nodes.leave, who)


def say(ingest: Any, who: Identity, **said: Any) -> None:
    assert nodes.beat(ingest.database, who, Beat(**said), polled_seconds=1.0)


def test_a_node_shows_what_it_runs_and_of_other_tenants_only_how_much(
    ingest: Any, operator: Any, who: Identity
) -> None:
    ours = Running(str(uuid4()), "acme", f"book{HOSTILE}", 2, "2026-11-28T09:30:00+00:00")
    theirs = replace(ours, event_id=str(uuid4()), tenant="other", handler="secret-handler")
    say(ingest, who, busy=2, running=(ours, theirs))

    answer = operator.get("/console/workers")

    said = seen(answer, f"n-{who.node_id}")
    assert said.startswith(f"{who.host} Active processor Slots 2 of 8 busy Up since")
    for words in ("Version 1.2.3", "Serves order.placed test.*", "worker-0 pid 11", f"{ours.handler} attempt 2, since",
                  "1 event of other tenants"):  # fmt: skip
        assert words in said
    assert f'href="/console/events/{ours.event_id}"' in answer.text
    assert "secret-handler" not in answer.text
    assert theirs.event_id not in answer.text
    assert "<script>alert" not in answer.text


def test_without_any_worker_the_page_says_what_to_start(operator: Any) -> None:
    said = seen(operator.get("/console/workers"))

    assert "No worker has been heard of" in said
    assert "python -m holdfast.processor" in said


def test_an_administrator_drains_and_undrains_a_node_and_the_audit_log_leads_to_it(
    ingest: Any, admin: Any, who: Identity
) -> None:
    there = f"/console/workers/{who.node_id}"
    assert f'action="{there}/drain"' in admin.get("/console/workers").text

    drained = admin.send(f"{there}/drain")

    assert (drained.status_code, drained.headers["location"]) == (
        303, f"/console/workers?notice=draining#n-{who.node_id}"
    )  # fmt: skip
    say(ingest, who, busy=1, is_draining=True)
    assert f"{who.host} Draining" in seen(admin.get("/console/workers"), f"n-{who.node_id}")
    say(ingest, who, is_draining=True)
    answer = admin.get("/console/workers")
    assert f"{who.host} Drained" in seen(answer, f"n-{who.node_id}")
    assert f'action="{there}/drain"' not in answer.text
    assert admin.send(f"{there}/undrain").headers["location"].startswith("/console/workers?notice=undrained")
    assert f"{who.host} Active" in seen(admin.get("/console/workers"), f"n-{who.node_id}")
    assert audited(ingest, "node", who.node_id) == ["drain_node", "undrain_node"]
    assert f'href="/console/workers#n-{who.node_id}"' in admin.get("/console/audit?action=drain_node").text


def test_who_is_no_administrator_sees_no_way_to_drain_and_has_none(operator: Any, api: Any, who: Identity) -> None:
    assert "/drain" not in operator.get("/console/workers").text

    answer = operator.send(f"/console/workers/{who.node_id}/drain")

    assert answer.status_code == 403
    assert "admin" in answer.text
    [node] = [each for each in api("GET", "/v1/workers").json()["items"] if each["node_id"] == who.node_id]
    assert node["drain_since"] is None


def test_what_cannot_be_drained_is_refused(ingest: Any, admin: Any, who: Identity) -> None:
    other = replace(who, node_id=uuid4().hex[:12], service="maintenance")
    ingest.database.call(nodes.enter, other, is_drained=False)

    assert admin.send(f"/console/workers/{other.node_id}/drain").status_code == 409
    assert f"{other.node_id}/drain" not in admin.get("/console/workers").text
    for name in ("000000000000", "x", "ABCDEFABCDEF"):
        assert admin.send(f"/console/workers/{name}/drain").status_code == 404
    ingest.database.call(nodes.leave, other)


def test_a_silent_node_is_stale(ingest: Any, operator: Any, who: Identity) -> None:
    with ingest.database.transaction() as session:
        session.execute(text("UPDATE node_worker SET beat_at = now() - interval '31 s'"))

    assert f"{who.host} Stale" in seen(operator.get("/console/workers"), f"n-{who.node_id}")


def test_an_event_without_handler_says_so_with_the_type_that_was_perhaps_meant(
    ingest: Any, viewer: Any, put: Put, who: Identity
) -> None:
    say(ingest, who)
    said = seen(viewer.get(f"/console/events/{put(type='order.plcaed')}"), "waiting")

    assert said.startswith("Why it waits No processor serves order.plcaed")
    assert "did you mean order.placed" in said
    assert "Deploy a handler" in said


def test_an_event_that_waits_for_its_turn_leads_to_the_one_at_the_front(ingest: Any, viewer: Any, put: Put) -> None:
    kind, subject = f"turn.{uuid4().hex}", f"s{HOSTILE}"
    with ingest.database.transaction() as session:
        served.declare_ordered(session, [kind])
    first = put(type=kind, subject=subject)
    put(type=kind, subject=subject)
    answer = viewer.get(f"/console/events/{put(type=kind, subject=subject)}")

    assert "ahead of it 2 events" in seen(answer, "waiting")
    assert f'href="/console/events/{first}"' in answer.text
    assert "<script>alert" not in answer.text


def test_a_drained_node_is_linked_for_operators_and_not_named_to_viewers(
    ingest: Any, operator: Any, viewer: Any, put: Put, who: Identity
) -> None:
    event_id = put(type="order.placed")
    with ingest.database.transaction() as session:
        session.execute(text("UPDATE node SET drain_since = now() WHERE id = :id"), {"id": who.node_id})

    page = operator.get(f"/console/events/{event_id}").text

    assert f'<a href="/console/workers#n-{who.node_id}">' in page
    assert "every processor that serves it is drained" in page
    assert who.node_id not in viewer.get(f"/console/events/{event_id}").text


def test_a_place_in_the_backlog_and_a_run_are_told(ingest: Any, operator: Any, put: Put, who: Identity) -> None:
    say(ingest, who, busy=3, is_broker_away=True)
    put(type="order.placed")
    event_id = put(type="order.placed")
    said = seen(operator.get(f"/console/events/{event_id}"), "waiting")
    assert re.search(r"due before it [1-9]\d* events? of all tenants", said), said
    assert "slots 3 of 8 busy" in said
    assert "broker away" in said

    with ingest.database.transaction() as session:
        assert claims.claim_events(session, [(UUID(event_id), 1)], owner="w", lease_seconds=60)
    say(ingest, who, busy=1, running=(Running(event_id, "acme", "book", 1, "2026-11-28T09:30:00+00:00"),))
    said = seen(operator.get(f"/console/events/{event_id}"), "waiting")
    assert said.startswith("It runs now Attempt 1 runs by book")
    assert f"on {who.host}" in said


def test_an_event_that_is_done_with_waits_for_nothing(viewer: Any, put: Put) -> None:
    assert 'id="waiting" data-region></div>' in viewer.get(f"/console/events/{put('dead')}").text


def test_an_event_is_found_by_its_request_and_its_trace(viewer: Any, post: Any, make_event: Any) -> None:
    trace_id = uuid4().hex
    answer = post(make_event(), traceparent=f"00-{trace_id}-00f067aa0ba902b7-01")
    event_id, request_id = answer.json()["event_id"], answer.headers["x-request-id"]

    page = viewer.get(f"/console/events/{event_id}").text

    for address in (f"/console/events?request_id={request_id}", f"/console/events?trace_id={trace_id}"):
        assert f'href="{address}"' in page
        assert event_id in viewer.get(address).text
    assert event_id not in viewer.get(f"/console/events?trace_id={uuid4().hex}").text


def test_a_group_is_counted_then_discarded_and_its_progress_shown(operator: Any, put: Put) -> None:
    error = f"E{uuid4().hex}"
    for _ in range(3):
        put("dead", error=error)
    new = next(
        each for each in re.findall(r'href="(/console/discards/new\?[^"]*)"', operator.get("/console/dead-letters").text)
        if error in each
    )  # fmt: skip
    question = operator.get(html.unescape(new)).text
    assert "Discard 3 events?" in question
    values = hidden(question, "/console/discards")

    started = operator.send("/console/discards", values)

    assert started.status_code == 303, started.text
    address = started.headers["location"].partition("?")[0]
    said = seen(operator.get(f"{address}?notice=discard_started"))
    assert "Discard of 3 events" in said
    assert "0 discarded, 0 skipped, 3 to go" in said
    assert operator.send("/console/discards", values).headers["location"] == started.headers["location"]
    assert address in operator.get("/console/discards").text
    job = address.rpartition("/")[2]
    assert job not in operator.get("/console/replays").text
    assert operator.get(f"/console/replays/{job}").status_code == 404
    assert f'href="{address}"' in operator.get(f"/console/audit?replay_id={job}").text
    assert operator.send(f"{address}/cancel").headers["location"] == f"{address}?notice=discard_cancelled"
    assert "Cancelled" in operator.get(address).text


def test_events_that_wait_are_discarded_too_and_others_cannot_be(operator: Any, put: Put) -> None:
    kind = f"t.{uuid4().hex}"
    put(type=kind)

    assert "/console/discards/new?type=" in operator.get(f"/console/events?type={kind}&state=queued").text
    assert "Discard 1 event?" in operator.get(f"/console/discards/new?type={kind}&state=queued").text
    assert operator.get("/console/discards/new?state=processed").status_code == 400
    assert operator.send("/console/discards", {"request": "k", "state": "processed"}).status_code == 400


def test_events_that_run_are_cancelled_together(operator: Any, put: Put) -> None:
    kind = f"t.{uuid4().hex}"
    put("processing", type=kind)

    assert "Cancel these…" in operator.get(f"/console/events?type={kind}&state=processing").text
    asked = operator.get(f"/console/discards/new?type={kind}&state=processing").text
    assert "Cancel 1 event?" in asked
    assert "one that is done by then stays processed" in asked
    begun = operator.send("/console/discards", {"request": uuid4().hex, "type": kind, "state": "processing"})
    assert "0 to be cancelled, 0 skipped, 1 to go" in operator.get(begun.headers["location"]).text


def test_another_tenants_discard_is_not_there(operator: Any, visitor: Visitor, put: Put) -> None:
    error = f"E{uuid4().hex}"
    put("dead", error=error)
    started = operator.send("/console/discards", {"request": uuid4().hex, "error_type": error})
    address = started.headers["location"].partition("?")[0]
    stranger = visitor("admin", tenant="stranger")

    assert stranger.get(address).status_code == 404
    assert stranger.send(f"{address}/cancel").status_code == 404
    assert address not in stranger.get("/console/discards").text
