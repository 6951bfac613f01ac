"""Schedules at the console: shown, paused, run and deleted by operators, and by nobody else."""

import html
import re
from collections.abc import Callable
from datetime import UTC
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text
from tests.contract.console import audited, hidden, seen

from holdfast.domain.schedule import ScheduleSpec
from holdfast.runtime.cron import next_tick
from holdfast.storage import schedules
from holdfast.storage.audit import Actor, handlers_actor
from holdfast.storage.schedules import Schedule

Visitor = Callable[..., Any]

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def ingest_settings() -> dict[str, str]:
    return {"HOLDFAST_CONSOLE_SECRET": "a secret of the console's tests, long enough"}


@pytest.fixture
def name() -> str:
    return f"s-{uuid4().hex[:12]}"


def make(ingest: Any, name: str, *, tenant: str = "acme", is_declared: bool = False, **fields: Any) -> None:
    spec = ScheduleSpec(**{"name": name, "cron": "0 7 * * mon-fri", "type": f"t.{HOSTILE}"} | fields)
    actor = handlers_actor(tenant) if is_declared else Actor(tenant, "abcdefghijkl")
    ingest.database.call(schedules.put_schedule, actor, spec, next_tick=next_tick, is_declared=is_declared)


def row(answer: httpx.Response, name: str) -> str:
    """What somebody reads of one schedule, from its state on."""
    found = re.search(rf'<tr id="s-{name}">(.*?)</tr>', answer.text, re.DOTALL)
    assert found is not None, name
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", found[1])).split())


def stored(ingest: Any, name: str) -> Schedule | None:
    found: Schedule | None = ingest.database.call(schedules.find_schedule, name, tenant="acme")
    return found


def test_without_schedules_the_page_says_how_to_make_the_first_one(ingest: Any, visitor: Visitor) -> None:
    with ingest.database.transaction() as session:
        session.execute(text("DELETE FROM schedule"))

    said = seen(visitor("events:read", "operate").get("/console/schedules"))

    assert "No schedules yet" in said
    assert "holdfast schedules set daily-report" in said


def test_a_schedule_shows_when_it_ticks_in_words_and_leads_to_its_last_event(
    ingest: Any, operator: Any, name: str
) -> None:
    event_id = uuid4()
    make(ingest, name, timezone="Europe/Istanbul", is_declared=True)
    with ingest.database.transaction() as session:
        session.execute(
            text("UPDATE schedule SET last_at = now(), last_event_id = :id, skipped = 3 WHERE name = :name"),
            {"id": event_id, "name": name},
        )

    answer = operator.get("/console/schedules")

    said = row(answer, name)
    schedule = stored(ingest, name)
    assert schedule is not None
    assert schedule.next_at is not None
    assert said.startswith(f"Active {name} At 07:00 on Monday through Friday · Europe/Istanbul · t.{HOSTILE}")
    assert "declared by handlers" in said
    assert f"{schedule.next_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC" in said
    assert f'href="/console/events/{event_id}"' in answer.text
    assert "it comes back with the next start of a processor" in answer.text
    assert "<script>alert" not in answer.text


def test_a_schedule_that_fails_says_why(ingest: Any, operator: Any, name: str) -> None:
    make(ingest, name)
    with ingest.database.transaction() as session:
        session.execute(
            text(
                "UPDATE schedule SET failures = 2, last_error = 'InvalidSchedule', timezone = 'Mars/Olympus'"
                " WHERE name = :name"
            ),
            {"name": name},
        )

    said = row(operator.get("/console/schedules"), name)

    assert said.startswith(f"Failing {name} 0 7 * * mon-fri · Mars/Olympus")
    assert "InvalidSchedule, 2 times in a row" in said
    operator.send(f"/console/schedules/{name}/pause")
    answer = operator.send(f"/console/schedules/{name}/resume")
    assert answer.status_code == 409
    assert "its timezone is unknown" in html.unescape(answer.text)


def test_an_operator_pauses_and_resumes_it(ingest: Any, operator: Any, name: str) -> None:
    make(ingest, name)

    paused = operator.send(f"/console/schedules/{name}/pause")

    assert (paused.status_code, paused.headers["location"]) == (
        303, f"/console/schedules?notice=schedule_paused#s-{name}",
    )  # fmt: skip
    assert row(operator.get("/console/schedules"), name).startswith("Paused")
    assert (
        operator.send(f"/console/schedules/{name}/resume")
        .headers["location"]
        .startswith("/console/schedules?notice=schedule_resumed")
    )
    assert row(operator.get("/console/schedules"), name).startswith("Active")
    assert audited(ingest, "schedule", name) == ["create_schedule", "pause_schedule", "resume_schedule"]
    assert f'href="/console/schedules#s-{name}"' in operator.get("/console/audit?action=pause_schedule").text


def test_running_it_leads_to_its_event_and_a_form_sent_twice_runs_it_once(
    ingest: Any, operator: Any, name: str
) -> None:
    make(ingest, name)
    request = hidden(operator.get("/console/schedules").text, f"/console/schedules/{name}/run")["request"]

    first, again = (operator.send(f"/console/schedules/{name}/run", {"request": request}) for _ in range(2))

    [event_id] = re.findall(r"/console/events/(.+)\?notice=schedule_ran", first.headers["location"])
    assert again.headers["location"] == f"/console/events/{event_id}?notice=repeated"
    assert name in seen(operator.get(first.headers["location"]))
    assert audited(ingest, "schedule", name) == ["create_schedule", "run_schedule"]


def test_an_operator_deletes_it(ingest: Any, operator: Any, name: str) -> None:
    make(ingest, name)

    answer = operator.send(f"/console/schedules/{name}/delete")

    assert answer.headers["location"] == "/console/schedules?notice=schedule_deleted"
    assert stored(ingest, name) is None
    for verb in ("pause", "resume", "run", "delete"):
        assert operator.send(f"/console/schedules/{name}/{verb}", {"request": "r"}).status_code == 404


@pytest.mark.parametrize("verb", ["pause", "resume", "run", "delete"])
def test_who_is_no_operator_of_the_tenant_can_do_nothing(
    ingest: Any, viewer: Any, visitor: Visitor, name: str, verb: str
) -> None:
    make(ingest, name)
    before = stored(ingest, name)

    assert viewer.get("/console/schedules").status_code == 403
    assert viewer.send(f"/console/schedules/{name}/{verb}", {"request": "r"}).status_code == 403
    make(ingest, f"{name}-theirs", tenant="other")
    assert f"{name}-theirs" not in visitor("events:read", "operate").get("/console/schedules").text
    assert (
        visitor("events:read", "operate").send(f"/console/schedules/{name}-theirs/{verb}", {"request": "r"}).status_code
        == 404
    )
    assert stored(ingest, name) == before


def test_a_long_list_goes_on_behind_a_link(ingest: Any, operator: Any) -> None:
    for number in range(51):
        make(ingest, f"zz-{number:03}")

    there, shown = "/console/schedules", ""
    while there:
        answer = operator.get(there)
        shown += answer.text
        found = re.search(r'href="(\?cursor=[^"]+)" rel="next"', answer.text)
        there = f"/console/schedules{html.unescape(found[1])}" if found else ""

    assert all(shown.count(f'id="s-zz-{number:03}"') == 1 for number in range(51))
