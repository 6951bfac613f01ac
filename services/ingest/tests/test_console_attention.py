"""What the overview says needs attention, and events as a file."""

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from holdfast.ingest.console.attention import OVERDUE_SECONDS, points
from holdfast.ingest.console.export import MAX_BYTES, as_csv, as_jsonl
from holdfast.ingest.console.reading import PAGE
from holdfast.storage import event_views
from holdfast.storage.nodes import NodeView, WorkerView
from holdfast.storage.statistics import Unserved

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def ingest_settings() -> dict[str, str]:
    return {"HOLDFAST_CONSOLE_SECRET": "a secret of the console's tests, long enough"}


def node(service: str, *, is_stale: bool = False, is_drained: bool = False, is_broker_away: bool = False) -> NodeView:
    worker = WorkerView(
        name="worker-0", pid=1, started_at=NOW, beat_at=NOW, polled_at=NOW, slots=8, busy=0, is_suspect=False,
        is_draining=is_drained, is_broker_away=is_broker_away, is_stale=is_stale, running=[],
    )  # fmt: skip
    drained_at = NOW if is_drained else None
    return NodeView("a" * 12, service, f"<{service}>", 1, "1", NOW, ["t"], drained_at, None, [worker])


def said(nodes: Sequence[NodeView] | None, **facts: Any) -> list[tuple[str, str]]:
    given: dict[str, Any] = {"oldest_due_at": None, "unserved": []} | facts
    return [(point.tone, point.text) for point in points(nodes=nodes, now=NOW, **given)]


WELL = [node("maintenance"), node("processor")]


def test_nothing_is_said_while_all_is_well() -> None:
    assert said(WELL) == []
    assert said(None) == [], "nor of nodes to somebody who may not see them"
    assert said(WELL, oldest_due_at=NOW - timedelta(seconds=OVERDUE_SECONDS)) == []
    assert said(WELL, unserved=[Unserved("t", 1, False, 1.0, is_served=True)]) == []


@pytest.mark.parametrize(
    ("nodes", "tone", "words"),
    [
        ([node("maintenance")], "bad", "No processor has been heard of"),
        ([node("maintenance"), node("processor", is_stale=True)], "bad", "No processor has been heard of"),
        ([node("maintenance"), node("processor", is_drained=True)], "bad", "Every processor is drained"),
        ([*WELL, node("processor", is_drained=True)], "warn", "takes nothing new: it is drained"),
        ([*WELL, node("processor", is_stale=True)], "warn", "has said nothing for half a minute"),
        ([*WELL, node("processor", is_broker_away=True)], "warn", "cannot reach the broker"),
        ([node("processor")], "bad", "No maintenance has been heard of"),
    ],
)
def test_what_is_wrong_with_nodes_is_said(nodes: Sequence[NodeView], tone: str, words: str) -> None:
    assert [each for each, text in said(nodes) if words in text] == [tone]


def test_what_holds_events_up_comes_first() -> None:
    waiting = [Unserved("com.b", 1, False, 1.0, False), Unserved("com.a", 2000, True, 1.0, False)]

    found = said([*WELL, node("processor", is_stale=True)], oldest_due_at=NOW - timedelta(minutes=5), unserved=waiting)

    assert [tone for tone, _ in found] == ["bad", "bad", "bad", "warn"]
    assert [text for _, text in found][:3] == [
        "An event has been due for 5 min.",
        "1 event waits for a handler of com.b.",
        "2\u202f000 or more events wait for a handler of com.a.",
    ]


def test_the_overview_says_that_nobody_processes_and_a_viewer_is_not_told(
    operator: Any, viewer: Any, put: Callable[..., str]
) -> None:
    put("queued")

    assert "No processor has been heard of" in operator.get("/console/").text
    assert "Busy threads" in operator.get("/console/").text
    assert "No processor has been heard of" not in viewer.get("/console/").text
    assert "Busy threads" not in viewer.get("/console/").text


def test_events_are_had_as_a_file_by_the_filter_of_the_page(operator: Any, put: Callable[..., str]) -> None:
    dead, _ = put("dead"), put("queued")

    lines = operator.get("/console/events.jsonl?state=dead&type=").text.splitlines()
    answer = operator.get("/console/events.csv?state=dead")

    assert dead in [json.loads(line)["event_id"] for line in lines]
    assert {json.loads(line)["state"] for line in lines} == {"dead"}
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["event_id"] for row in rows] == [json.loads(line)["event_id"] for line in lines]
    assert {row["state"] for row in rows} == {"dead"}
    assert answer.headers["content-disposition"] == 'attachment; filename="events.csv"'
    assert "events.csv?state=dead" in operator.get("/console/events?state=dead").text


def test_more_events_than_a_page_are_in_the_file(
    operator: Any, ingest: Any, api: Callable[..., httpx.Response], make_event: Callable[..., dict[str, Any]]
) -> None:
    batch = json.dumps([make_event() for _ in range(PAGE + 10)])
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    answer = api("POST", "/v1/events", key=ingest.key("events:write"), content=batch, headers=headers)
    made = {each["event_id"] for each in answer.json()["events"]}

    lines = operator.get("/console/events.jsonl").text.splitlines()

    assert made <= {json.loads(line)["event_id"] for line in lines}


def test_a_viewer_has_no_texts_of_errors_in_the_file(viewer: Any, operator: Any, put: Callable[..., str]) -> None:
    put("dead")

    errors = [
        {
            json.loads(line)["last_error"]["message"]
            for line in each.get("/console/events.jsonl?state=dead").text.splitlines()
        }
        for each in (viewer, operator)
    ]

    assert errors[0] == {None}
    assert None not in errors[1]


@pytest.mark.parametrize(
    ("path", "status"), [("/console/events.xlsx", 404), ("/console/events.csv?state=sleeping", 400)]
)
def test_what_cannot_be_had_is_said(operator: Any, path: str, status: int) -> None:
    assert operator.get(path).status_code == status


def test_nobody_has_a_file_without_a_session(visitor: Any) -> None:
    assert visitor().get("/console/events.csv").status_code == 303


def test_no_cell_is_a_formula_and_no_file_is_endless(ingest: Any, put: Callable[..., str]) -> None:
    event_id = UUID(put("dead"))
    view = ingest.database.call(event_views.find, event_id=event_id, tenant="acme")
    hostile, long = (
        dataclasses.replace(view, event=dataclasses.replace(view.event, subject=subject))
        for subject in ("=HYPERLINK(1)", "x" * 1_000_000)
    )

    [_, row] = csv.reader(io.StringIO(as_csv([hostile], is_operator=True).decode()))
    file = as_jsonl([long] * 40, is_operator=True)

    assert "'=HYPERLINK(1)" in row
    assert len(file) <= MAX_BYTES
    assert {len(json.loads(line)["event"]["subject"]) for line in file.splitlines()} == {1_000_000}, "whole lines"
