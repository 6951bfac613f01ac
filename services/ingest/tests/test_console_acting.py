"""What operators do at the console: replay and discard an event, replay a group."""

import html
import re
from collections.abc import Callable
from typing import Any

import pytest
from tests.contract.console import text_of


@pytest.fixture(scope="module")
def ingest_settings() -> dict[str, str]:
    return {"HOLDFAST_CONSOLE_SECRET": "a secret of the console's tests, long enough"}


def test_an_operator_replays_a_dead_event_once_however_often_the_form_is_sent(
    operator: Any, api: Any, put: Callable[..., str]
) -> None:
    event_id = put("dead")
    page = f"/console/events/{event_id}"
    values = {"request": operator.request_key(page)}

    first = operator.send(f"{page}/replay", values)
    second = operator.send(f"{page}/replay", values)

    assert (first.status_code, first.headers["location"]) == (303, f"{page}?notice=replayed")
    assert second.headers["location"] == f"{page}?notice=repeated"
    assert api("GET", f"/v1/events/{event_id}").json()["state"] == "queued"
    assert "queued again" in operator.get(first.headers["location"]).text


def test_the_replay_of_a_processed_event_leads_to_the_new_one(operator: Any, put: Callable[..., str]) -> None:
    event_id = put("processed")
    page = f"/console/events/{event_id}"

    answer = operator.send(f"{page}/replay", {"request": operator.request_key(page)})

    assert answer.headers["location"].endswith("?notice=copied")
    assert event_id not in answer.headers["location"]
    assert f'href="/console/events/{event_id}"' in operator.get(answer.headers["location"]).text


def test_a_running_event_can_be_cancelled_and_nothing_else(operator: Any, api: Any, put: Callable[..., str]) -> None:
    event_id = put("processing")
    page = f"/console/events/{event_id}"
    shown = operator.get(page).text
    assert f'action="{page}/cancel"' in shown
    assert f'action="{page}/discard"' not in shown

    answer = operator.send(f"{page}/cancel", {"request": operator.request_key(page)})

    assert answer.headers["location"] == f"{page}?notice=cancel_asked"
    assert "is being cancelled" in operator.get(answer.headers["location"]).text
    assert api("POST", f"/v1/events/{event_id}/cancel").json()["duplicate"] is True


def test_an_operator_discards_an_event_and_the_audit_log_knows_who(
    ingest: Any, operator: Any, api: Any, put: Callable[..., str]
) -> None:
    event_id = put("queued")
    page = f"/console/events/{event_id}"

    operator.send(f"{page}/discard", {"request": operator.request_key(page)})

    assert api("GET", f"/v1/events/{event_id}").json()["state"] == "discarded"
    [key_id] = re.findall(r'<span class="mono">(\w{12})</span></dd>', operator.get("/console/").text)
    with ingest.database.transaction() as session:
        rows = session.connection().exec_driver_sql(
            "SELECT actor, action FROM audit_log WHERE event_id = %s", (event_id,)
        )
        assert [tuple(row) for row in rows] == [(key_id, "discard")]


def test_what_the_state_does_not_allow_is_said_and_not_done(operator: Any, api: Any, put: Callable[..., str]) -> None:
    event_id = put("processed")

    answer = operator.send(f"/console/events/{event_id}/discard", {"request": "some-key"})

    assert answer.headers["location"].endswith("?notice=not_allowed")
    assert api("GET", f"/v1/events/{event_id}").json()["state"] == "processed"


@pytest.mark.parametrize("wrong", ["", "with space", "x" * 65])
def test_a_form_without_a_usable_key_does_nothing(operator: Any, api: Any, put: Callable[..., str], wrong: str) -> None:
    event_id = put("dead")

    assert operator.send(f"/console/events/{event_id}/replay", {"request": wrong}).status_code == 400
    assert api("GET", f"/v1/events/{event_id}").json()["state"] == "dead"


def test_a_form_that_is_too_long_is_refused(operator: Any) -> None:
    assert operator.send("/console/theme", {"theme": "dark", "next": "x" * 70_000}).status_code == 413


def test_a_get_changes_nothing(operator: Any, api: Any, put: Callable[..., str]) -> None:
    event_id = put("dead")

    for path in (f"/events/{event_id}/replay", f"/events/{event_id}/discard", "/theme?theme=dark", "/live-token",
                 "/workers/0123456789ab/drain", "/keys/0123456789ab/revoke", "/keys/0123456789ab/rotate",
                 "/pauses", "/pauses/0/resume"):  # fmt: skip
        assert operator.get(f"/console{path}").status_code == 404
    assert api("GET", f"/v1/events/{event_id}").json()["state"] == "dead"


def test_dead_letters_are_grouped_and_a_group_leads_to_its_events(operator: Any, put: Callable[..., str]) -> None:
    inside, outside = put("dead", error="OSError"), put("dead", error="EOFError")

    page = operator.get("/console/dead-letters").text
    address = next(each for each in re.findall(r'href="(/console/events\?[^"]*)"', page) if "OSError" in each)

    events = operator.get(html.unescape(address)).text
    assert inside in events
    assert outside not in events


def test_a_group_is_counted_then_replayed_and_its_progress_shown(operator: Any, put: Callable[..., str]) -> None:
    for _ in range(3):
        put("dead", error="ConnectionResetError")
    page = operator.get("/console/dead-letters").text
    new = next(
        each for each in re.findall(r'href="(/console/replays/new\?[^"]*)"', page) if "ConnectionResetError" in each
    )
    question = operator.get(html.unescape(new)).text
    values = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', question.partition("<main")[2]))
    assert "Replay 3 events?" in question

    started = operator.send("/console/replays", values | {"rate_per_s": "2"})

    assert started.status_code == 303, started.text
    address = started.headers["location"].partition("?")[0]
    seen = text_of(operator.get(address))
    assert "3 events" in seen
    assert "0 replayed, 0 skipped, 3 to go" in seen
    assert address in operator.get("/console/replays").text
    assert (
        operator.send("/console/replays", values | {"rate_per_s": "2"}).headers["location"]
        == started.headers["location"]
    )

    assert operator.send(f"{address}/cancel").headers["location"] == f"{address}?notice=cancelled"
    assert "Cancelled" in operator.get(address).text


@pytest.mark.parametrize(
    "values", [{"rate_per_s": "0"}, {"rate_per_s": "nan"}, {}, {"rate_per_s": "1", "state": "queued"}]
)
def test_a_replay_that_cannot_be_is_refused(operator: Any, values: dict[str, str]) -> None:
    assert operator.send("/console/replays", values | {"request": "a-key"}).status_code == 400


def test_another_tenants_replay_is_not_there(
    operator: Any, visitor: Callable[..., Any], put: Callable[..., str]
) -> None:
    put("dead", error="LookupError")
    started = operator.send("/console/replays", {"request": "mine", "rate_per_s": "1", "error_type": "LookupError"})
    address = started.headers["location"].partition("?")[0]
    stranger = visitor("admin", tenant="stranger")

    assert stranger.get(address).status_code == 404
    assert stranger.send(f"{address}/cancel", page="/console/").status_code == 404
    assert address not in stranger.get("/console/replays").text
