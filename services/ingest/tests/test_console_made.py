"""What an event's page says of its steps, its groups and its place among others."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from tests.contract.console import seen

from holdfast.domain.event import NewGroup
from holdfast.domain.pauses import PauseKind
from holdfast.domain.state import State
from holdfast.domain.transitions import supersede
from holdfast.runtime.ids import uuid7
from holdfast.storage import aside, lifecycle, pauses
from holdfast.storage.audit import Actor
from holdfast.storage.groups import Ended, count_ended, record_group

HOSTILE = "<script>alert(1)</script>"

Put = Callable[..., str]


@pytest.fixture(scope="module")
def ingest_settings() -> dict[str, str]:
    return {"HOLDFAST_CONSOLE_SECRET": "a secret of the console's tests, long enough"}


def store_steps(ingest: Any, event_id: str, result: str) -> None:
    stored = text(
        "INSERT INTO event_step (event_id, handler, name, lease_token, attempt, result, wake_at, duration_ms, stored_at)"
        " VALUES (:id, 'fulfil', :name, :id, 1, :result, NULL, 120, '2026-11-24T09:00Z'),"
        " (:id, 'fulfil', 'cool off', :id, 1, NULL, '2026-11-25T09:00Z', 0, '2026-11-24T09:01Z')"
    )
    with ingest.database.transaction() as session:
        session.execute(stored, {"id": event_id, "name": f"charge{HOSTILE}", "result": result})


def test_steps_are_shown_and_their_results_to_operators_alone(
    ingest: Any, operator: Any, viewer: Any, put: Put
) -> None:
    event_id = put("dead")
    store_steps(ingest, event_id, '{"card": "4111"}')

    for who, sees_results in ((operator, True), (viewer, False)):
        answer = who.get(f"/console/events/{event_id}")
        said = seen(answer, "steps")
        assert f"Step charge{HOSTILE} 120 ms" in said
        assert "Sleep cool off" in said
        assert "until 2026-11-25 09:00:00 UTC" in said
        assert "attempt 1 of fulfil" in said
        assert ("4111" in answer.text) is sees_results
        assert "<script>alert" not in answer.text


def test_a_long_result_and_many_steps_are_cut(ingest: Any, operator: Any, put: Put) -> None:
    event_id = put("dead")
    store_steps(ingest, event_id, f'"{"x" * 30_000}"')
    more = text(
        "INSERT INTO event_step (event_id, handler, name, lease_token, attempt, result, duration_ms)"
        " SELECT :id, 'fulfil', 'n-' || n, :id, 1, '7', 1 FROM generate_series(1, 99) n"
    )
    with ingest.database.transaction() as session:
        session.execute(more, {"id": event_id})

    page = operator.get(f"/console/events/{event_id}").text

    assert "the latest 100 of 101" in page
    assert "xxx" not in page, "it was the first"

    event_id = put("dead")
    store_steps(ingest, event_id, f'"{"x" * 30_000}"')
    assert 990 < operator.get(f"/console/events/{event_id}").text.count("xx") < 1010


def test_groups_say_how_far_they_are_and_lead_to_what_followed(ingest: Any, viewer: Any, put: Put) -> None:
    parent_id, first, second = put("processed"), put(), put()
    done, open_ = (NewGroup(id=uuid7(), tenant="acme", parent_id=UUID(parent_id), type=f"all.{n}") for n in "ab")
    with ingest.database.transaction() as session:
        record_group(session, done, [UUID(first), UUID(second)])
        count_ended(session, [Ended(UUID(first), done.id, State.PROCESSED), Ended(UUID(second), done.id, State.DEAD)])
        record_group(session, open_, [UUID(put())])

    answer = viewer.get(f"/console/events/{parent_id}")

    said = seen(answer, "groups")
    assert "Complete 2 of 2 ended" in said
    assert "0 open · 1 processed · 1 dead · 0 discarded followed by all.a" in said
    assert "Open 0 of 1 ended" in said
    assert "then comes all.b" in said
    assert f'href="/console/events?parent_id={parent_id}"' in answer.text
    listed = viewer.get(f"/console/events?source=/holdfast/groups&id={done.id}").text
    assert "all.a" in listed
    assert f"id={done.id}" in answer.text


def test_an_event_without_steps_and_groups_has_no_cards_of_them(viewer: Any, put: Put) -> None:
    page = viewer.get(f"/console/events/{put('dead')}").text

    assert 'id="steps" data-region></div>' in page
    assert 'id="groups" data-region></div>' in page


def test_priority_and_pool_are_shown_where_they_are_unusual(ingest: Any, viewer: Any, put: Put) -> None:
    event_id = put()
    assert "of 0 to 9" not in seen(viewer.get(f"/console/events/{event_id}"))

    with ingest.database.transaction() as session:
        moved = text("UPDATE processing_state SET priority = 8, pool = 'gpu' WHERE event_id = :id")
        session.execute(moved, {"id": event_id})

    said = seen(viewer.get(f"/console/events/{event_id}"))
    assert "priority 8 of 0 to 9, usually 5" in said
    assert "pool gpu" in said


def test_a_replaced_event_leads_to_the_later_one(ingest: Any, viewer: Any, put: Put) -> None:
    event_id, later = put(), put()
    with ingest.database.transaction() as session:
        assert lifecycle.apply(session, [supersede(UUID(event_id), UUID(later))])

    answer = viewer.get(f"/console/events/{event_id}")

    assert "a later event of its key took its place" in seen(answer, "timeline")
    assert f'href="/console/events/{later}"' in answer.text


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("sleeping", "its handler sleeps between two steps goes on after 30 s"),
        ("key_missing", "its data is sealed with a key that its worker does not have"),
        ("cancelled", "cancelled by an operator"),
    ],
)
def test_reasons_are_told_in_words(ingest: Any, viewer: Any, put: Put, reason: str, words: str) -> None:
    event_id = put()
    detail = text(
        "UPDATE event_update SET detail = jsonb_build_object('reason', CAST(:reason AS text), 'retry_in_seconds', 30)"
        " WHERE event_id = :id"
    )
    with ingest.database.transaction() as session:
        session.execute(detail, {"id": event_id, "reason": reason})

    assert words in seen(viewer.get(f"/console/events/{event_id}"), "timeline")


def test_a_paused_event_says_who_paused_what_and_why(ingest: Any, viewer: Any, put: Put) -> None:
    kind = f"paused.{uuid4().hex}"
    event_id, after = put(type=kind), put(type=kind)
    with ingest.database.transaction() as session:
        actor = Actor("acme", "ann-key", "ann")
        paused, _ = pauses.pause(session, actor, PauseKind.TYPE, kind, note_text=f"the bank {HOSTILE}")
    with ingest.database.transaction() as session:
        aside.set_aside(session, {UUID(each): paused.line for each in (event_id, after)})

    answer = viewer.get(f"/console/events/{after}")

    said = seen(answer, "waiting")
    assert f"paused type {kind}" in said
    assert "by ann" in said
    assert f"because the bank {HOSTILE}" in said
    assert "ahead of it 1 event in its line" in said
    assert "Resume it under Handlers, or discard the event." in said
    assert "<script>alert" not in answer.text
