"""Looking after events that exist: the client and its commands against a real server that answers from a script."""

import json
import os
import pty
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from holdfast.client import Client

Cli = Callable[..., Any]

EVENT_ID = "01a20ce1-a999-7253-85bb-3c3e269307a2"
OTHER_ID = "01a20ce1-a999-7253-85bb-3c3e269307a3"

DAY, NEXT_DAY = "2026-11-24T00:00:00Z", "2026-11-25T00:00:00Z"


def view(event_id: str = EVENT_ID, state: str = "dead") -> dict[str, Any]:
    error = {"type": "KeyError", "message": "\x1b[2Jno key", "handler": "h"} if state == "dead" else None
    return {
        "event_id": event_id, "event": {"id": "1", "source": "/s", "type": "com.[red]acme"}, "state": state, "version": 3,
        "attempt": 1, "received_at": "2026-11-24T09:30:00.1Z", "last_error": error, "timeline": [],
    }  # fmt: skip


def progress(state: str = "running", **changes: Any) -> dict[str, Any]:
    counts = {"total": 5, "replayed": 2, "skipped": 1, "remaining": 2, "failures": 0, "rate_per_s": 10.0}
    begun = {"created_by": "k", "created_at": "2026-11-24T09:30:00Z", "finished_at": None, "last_error": None}
    return {"replay_id": OTHER_ID, "state": state, "filter": {"state": "dead"}, **counts, **begun, **changes}


def dead_group(**changes: Any) -> dict[str, Any]:
    cause = {"handler": "h", "error_type": "KeyError", "fingerprint": "f1"}
    times = {"first_at": "2026-11-24T09:30:00Z", "last_at": "2026-11-24T09:31:00Z"}
    sample = {"event_id": EVENT_ID, "type": "t", "message": "no key"}
    return {
        **cause,
        "type": None,
        "count": 12,
        "count_last_hour": 3,
        **times,
        "sample": sample,
        "filter": cause,
        **changes,
    }


def moved(event_id: str = EVENT_ID, state: str = "queued") -> tuple[int, dict[str, Any], dict[str, str]]:
    return 202, {"event_id": event_id, "state": state, "version": 4, "duplicate": False, "enqueued": True}, {}


def refused(status: int, code: str) -> tuple[int, dict[str, Any], dict[str, str]]:
    return status, {"code": code, "detail": "because"}, {}


@pytest.fixture
def client(script: Any) -> Iterator[Client]:
    with Client(script.url, "hf_key") as client:
        yield client


def test_pages_are_read_as_they_are_asked_for_and_to_their_end(script: Any, client: Client) -> None:
    script.answers = [
        (200, {"items": [view(), view()], "next_cursor": "c1"}, {}),
        (200, {"items": [view(OTHER_ID)], "next_cursor": None}, {}),
    ]
    listed = client.events(state="dead", type=None)

    first = next(listed)

    assert (first.event_id, len(script.requests)) == (EVENT_ID, 1)
    assert [each.event_id for each in listed] == [EVENT_ID, OTHER_ID]
    queries = [parse_qs(urlsplit(path).query) for path, _, _ in script.requests]
    assert queries == [{"state": ["dead"], "limit": ["200"]}, {"state": ["dead"], "limit": ["200"], "cursor": ["c1"]}]


def test_no_more_events_are_asked_for_than_wanted(script: Any, client: Client) -> None:
    script.answers = [(200, {"items": [view()] * 3, "next_cursor": "c1"}, {})]

    assert len(list(client.events(limit=3))) == 3

    assert [parse_qs(urlsplit(path).query) for path, _, _ in script.requests] == [{"limit": ["3"]}]


def test_an_action_that_is_repeated_has_one_key(script: Any, client: Client) -> None:
    script.answers = [(503, {}, {"Retry-After": "0"}), moved(OTHER_ID)]

    assert client.replay(EVENT_ID, edit={"data": None}).event_id == OTHER_ID

    assert [(path, body) for path, _, body in script.requests] == [
        (f"/v1/events/{EVENT_ID}/replay", {"data": None})
    ] * 2
    assert len({headers["Idempotency-Key"] for _, headers, _ in script.requests}) == 1


def test_groups_and_replays_are_read_with_their_times(script: Any, client: Client) -> None:
    script.answers = [
        (200, {"items": [dead_group(of_a_newer_server=1)]}, {}),
        (200, progress("done", finished_at="2026-11-24T09:32:00Z"), {}), (200, progress("cancelled"), {}),
    ]  # fmt: skip

    [group] = client.dead_letters(limit=7)
    done, cancelled = client.replay_progress(OTHER_ID), client.cancel_replay(OTHER_ID)

    assert (group.count, group.sample.message, group.filter["fingerprint"]) == (12, "no key", "f1")
    assert group.last_at == datetime(2026, 11, 24, 9, 31, tzinfo=UTC)
    assert group.raw == dead_group(of_a_newer_server=1)
    assert (done.state, done.remaining, done.failures) == ("done", 2, 0)
    assert done.finished_at == datetime(2026, 11, 24, 9, 32, tzinfo=UTC)
    assert (cancelled.state, cancelled.finished_at) == ("cancelled", None)


def test_attempts_are_listed_in_the_order_of_the_answer(script: Any, client: Client) -> None:
    attempt = {"attempt": 1, "outcome": "processed", "handler": "h", "error": None, "at": "2026-11-24T09:30:01Z"}
    script.answers = [(200, {"items": [attempt, attempt | {"attempt": 2, "worker": "w"}]}, {})]

    assert [(each.attempt, each.worker) for each in client.attempts(EVENT_ID)] == [(1, None), (2, "w")]


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ({"items": [view() | {"of_a_newer_server": [1]}], "next_cursor": None}, ["events", "ls"]),
        ({"items": [dead_group(of_a_newer_server="ü")]}, ["dead", "groups"]),
        (moved()[1] | {"links": {"self": "/v1/events/x"}}, ["replay", EVENT_ID]),
        (moved()[1] | {"of_a_newer_server": None}, ["discard", EVENT_ID]),
        (moved()[1] | {"of_a_newer_server": None}, ["cancel", EVENT_ID]),
        (progress(links={"self": "/v1/replays/x"}), ["replays", "show", OTHER_ID]),
        (progress("cancelled", of_a_newer_server=1), ["replays", "cancel", OTHER_ID]),
        (progress(rate_per_s=10), ["replay", "--error-type", "E"]),
        (view(state="processed") | {"of_a_newer_server": 1}, ["events", "wait", EVENT_ID]),
    ],
)
def test_programs_get_every_answer_as_the_api_sent_it(
    cli: Cli, script: Any, body: dict[str, Any], arguments: list[str]
) -> None:
    script.answers = [(200, body, {})]

    [item] = body.get("items", [body])
    assert cli(*arguments, "-o", "json").stdout == json.dumps(item, ensure_ascii=False) + "\n"


def test_events_are_listed_for_people_and_for_programs(cli: Cli, script: Any) -> None:
    script.answers = [(200, {"items": [view(), view(OTHER_ID, "processed")], "next_cursor": None}, {})]

    shown = cli("events", "ls", "--state", "dead", "--after", "2026-11-24T00:00:00Z", "-n", "2")
    lines = cli("dead", "ls", "-o", "json").stdout.splitlines()

    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"dead       {EVENT_ID}  com.[red]acme  KeyError:  [2Jno key" in shown.stdout
    assert [json.loads(line)["event_id"] for line in lines] == [EVENT_ID, OTHER_ID]
    queries = [parse_qs(urlsplit(path).query) for path, _, _ in script.requests]
    assert queries == [
        {"state": ["dead"], "received_after": ["2026-11-24T00:00:00Z"], "limit": ["2"]},
        {"state": ["dead"], "limit": ["50"]},
    ]


def test_groups_say_what_kills_events_and_how_to_name_them(cli: Cli, script: Any) -> None:
    group = dead_group()
    script.answers = [(200, {"items": [group, dead_group(handler=None, fingerprint=None, type="t")]}, {})]

    shown = cli("dead", "groups").stdout

    assert "12          3  KeyError  in h" in shown
    assert "holdfast replay --handler h --error-type KeyError --fingerprint f1" in " ".join(shown.split())
    assert "before any handler" in shown
    assert json.loads(cli("dead", "groups", "-o", "json").stdout.splitlines()[0]) == group


def test_tracebacks_are_shown_on_request_and_move_no_cursor(cli: Cli, script: Any) -> None:
    error = {"type": "KeyError", "message": "no", "traceback": "Traceback:\n  File \x1b[2J"}
    attempt = {"attempt": 1, "outcome": "failed", "handler": "h", "error": error, "at": "2026-11-24T09:30:01Z"}
    script.answers = [(200, view() | {"attempts": [attempt]}, {})]

    shown = cli("events", "show", EVENT_ID, "--attempts")

    assert script.requests[0][0].endswith("?include=data%2Cattempts%2Ctimeline")
    assert "attempt 1 by h: KeyError: no\n    Traceback:\n      File  [2J" in shown.stdout


@pytest.mark.parametrize(("state", "status"), [("processed", 0), ("dead", 1), ("discarded", 1)])
def test_waiting_ends_with_a_status_that_scripts_can_use(cli: Cli, script: Any, state: str, status: int) -> None:
    script.answers = [(200, view(state="queued"), {}), (200, view(state=state), {})]

    done = cli("events", "wait", EVENT_ID, "--timeout", "30")

    assert (done.returncode, state in done.stdout) == (status, True)


def test_waiting_in_vain_is_said(cli: Cli, script: Any) -> None:
    script.answers = [(200, view(state="queued"), {})]

    done = cli("events", "wait", EVENT_ID, "--timeout", "0.1")

    assert (done.returncode, done.stdout) == (1, "")
    assert "still queued after 0.1 s" in done.stderr


def test_each_event_is_acted_on_whatever_becomes_of_the_others(cli: Cli, script: Any) -> None:
    script.answers = [refused(409, "event_processing"), moved(OTHER_ID), moved("new")]

    done = cli("replay", EVENT_ID, OTHER_ID, EVENT_ID)

    assert done.returncode == 1
    assert done.stdout.splitlines() == [f"{OTHER_ID}  queued", f"new  queued  (a new event for {EVENT_ID})"]
    assert done.stderr == f"{EVENT_ID}: 409 event_processing: because\n"


def test_a_cancelled_event_is_waited_for_and_told_as_it_ended(cli: Cli, script: Any) -> None:
    running: tuple[int, Any, Any] = (202, moved(EVENT_ID)[1] | {"state": "processing"}, {})
    script.answers = [running, (200, view(state="processing"), {}), (200, view(state="discarded"), {})]

    done = cli("cancel", EVENT_ID)

    assert (done.returncode, done.stdout) == (0, f"{EVENT_ID}  discarded\n")
    assert script.requests[0][0].endswith(f"{EVENT_ID}/cancel")


def test_an_event_that_does_not_end_in_time_is_told_as_it_stands(cli: Cli, script: Any) -> None:
    running: tuple[int, Any, Any] = (202, moved(EVENT_ID)[1] | {"state": "processing"}, {})
    script.answers = [running, running, *[(200, view(state="processing"), {})] * 20]

    at_once = cli("cancel", EVENT_ID, "--wait", "0")
    later = cli("cancel", EVENT_ID, "--wait", "0.1")

    assert at_once.stdout == later.stdout == f"{EVENT_ID}  processing\n"
    assert "still processing after 0.1 s" in later.stderr


@pytest.mark.parametrize("refusal", [(401, "unauthorized"), (403, "forbidden")])
def test_a_key_that_may_not_ends_it_at_once(cli: Cli, script: Any, refusal: tuple[int, str]) -> None:
    script.answers = [refused(*refusal)]

    done = cli("discard", EVENT_ID, OTHER_ID)

    assert (done.returncode, len(script.requests)) == (1, 1)
    assert refusal[1] in done.stderr


def test_other_data_goes_with_one_event(cli: Cli, script: Any) -> None:
    script.answers = [moved(OTHER_ID)]

    done = cli("replay", EVENT_ID, "--data", '{"n": 2}', "-o", "json")

    assert json.loads(done.stdout)["event_id"] == OTHER_ID
    assert script.requests[0][2] == {"data": {"n": 2}}


def test_all_asks_and_where_nobody_can_answer_replays_nothing(cli: Cli, script: Any) -> None:
    script.answers = [(200, {"count": 5}, {})]

    done = cli("replay", "--all")

    assert (done.returncode, done.stdout) == (1, "")
    assert "replay 5 events" in done.stderr
    assert "--yes" in done.stderr
    assert [body["dry_run"] for _, _, body in script.requests] == [True], "nothing but counted"


def test_all_does_not_ask_with_yes(cli: Cli, script: Any) -> None:
    script.answers = [(202, progress(), {})]

    done = cli("replay", "--all", "--yes", "--state", "discarded")

    assert done.returncode == 0
    assert [body["filter"] for _, _, body in script.requests] == [{"state": "discarded"}]


def test_many_are_counted_replayed_watched_and_stopped(cli: Cli, script: Any) -> None:
    script.answers = [
        (200, {"count": 5}, {}), (202, progress(), {}), (200, progress(), {}), (200, progress("cancelled"), {}),
    ]  # fmt: skip

    counted = cli("replay", "--error-type", "KeyError", "--dry-run")
    begun = cli("replay", "--error-type", "KeyError", "--rate", "2.5")
    shown = cli("replays", "show", OTHER_ID, "-o", "json")
    stopped = cli("replays", "cancel", OTHER_ID)

    assert counted.stdout == "5 events would be replayed\n"
    assert begun.stdout == f"{OTHER_ID}  running  replayed 2, skipped 1, remaining 2 of 5 at 10/s\n"
    assert json.loads(shown.stdout) == progress()
    assert "cancelled" in stopped.stdout
    assert [(path, body) for path, _, body in script.requests] == [
        ("/v1/replays", {"filter": {"error_type": "KeyError"}, "dry_run": True}),
        ("/v1/replays", {"filter": {"error_type": "KeyError"}, "rate_per_s": 2.5}),
        (f"/v1/replays/{OTHER_ID}", None),
        (f"/v1/replays/{OTHER_ID}", None),
    ]


def given_up(state: str = "running", **changes: Any) -> dict[str, Any]:
    counts = {"total": 5, "discarded": 2, "skipped": 1, "remaining": 2, "failures": 0}
    begun = {"created_by": "k", "created_by_name": "ann", "created_at": "2026-11-24T09:30:00Z", "finished_at": None}
    return {"discard_id": OTHER_ID, "state": state, "filter": {"state": "dead"}, **counts, **begun, **changes}


def test_a_discard_is_counted_begun_looked_at_and_stopped(script: Any, client: Client) -> None:
    script.answers = [(200, {"count": 5}, {}), (202, given_up(), {}), (200, given_up("cancelled"), {})]

    count = client.count_discard({"error_type": "E"})
    begun = client.start_discard({"error_type": "E"})
    stopped = client.cancel_discard(begun.discard_id)
    seen = client.discard_progress("a/b")

    assert (count, begun.discarded, begun.remaining, begun.created_by_name) == (5, 2, 2, "ann")
    assert (stopped.state, seen.raw) == ("cancelled", given_up("cancelled"))
    assert [(path, body) for path, _, body in script.requests] == [
        ("/v1/discards", {"filter": {"error_type": "E"}, "dry_run": True}),
        ("/v1/discards", {"filter": {"error_type": "E"}}),
        (f"/v1/discards/{OTHER_ID}", None), ("/v1/discards/a%2Fb", None),
    ]  # fmt: skip
    assert "Idempotency-Key" in script.requests[1][1]


def test_a_filter_is_counted_and_where_nobody_can_answer_discards_nothing(cli: Cli, script: Any) -> None:
    script.answers = [(200, {"count": 3}, {})]

    done = cli("discard", "--error-type", "KeyError")

    assert done.returncode == 1
    assert (
        "discard 3 events, all that are dead and match? stdin is not a terminal, so nothing was discarded"
        in done.stderr
    )
    assert [body for _, _, body in script.requests] == [{"filter": {"error_type": "KeyError"}, "dry_run": True}]


def test_what_runs_is_cancelled_in_so_many_words(cli: Cli, script: Any) -> None:
    filter_ = {"state": "processing", "type": "t"}
    script.answers = [
        (200, {"count": 3}, {}), (200, {"count": 3}, {}), (202, given_up(filter=filter_, discarded=2), {}),
    ]  # fmt: skip
    asked = ["discard", "--state", "processing", "--type", "t"]

    counted, refused, done = cli(*asked, "--dry-run"), cli(*asked), cli(*asked, "--yes")

    assert counted.stdout == "3 events would be cancelled\n"
    assert "cancel 3 events, all that are processing and match?" in refused.stderr
    assert "nothing was cancelled" in refused.stderr
    assert "to be cancelled 2, skipped" in done.stdout
    assert [body["filter"] for _, _, body in script.requests] == [filter_] * 3


@pytest.mark.parametrize(("answer", "status", "requests"), [(b"y\n", 0, 2), (b"n\n", 1, 1)])
def test_at_a_terminal_a_filter_asks_before_it_discards(
    script: Any, command: list[str], environment: dict[str, str], answer: bytes, status: int, requests: int
) -> None:
    script.answers = [(200, {"count": 3}, {}), (202, given_up(), {})]
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "wb", buffering=0) as terminal:
        process = subprocess.Popen(
            [*command, "discard", "--error-type", "E"], env=environment, stdin=theirs, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        os.close(theirs)
        terminal.write(answer)
        output, asked = process.communicate(timeout=60)

    assert (process.returncode, len(script.requests)) == (status, requests)
    assert "discard 3 events" in asked
    assert ("running" in output) is (status == 0)


def test_a_filter_discards_without_a_question_with_yes(cli: Cli, script: Any) -> None:
    script.answers = [(202, given_up(), {})]

    done = cli(
        "discard", "--state", "failed", "--type", "t", "--source", "/s", "--subject", "u", "--error-type", "E", "--handler",
        "h", "--fingerprint", "f", "--after", DAY, "--before", NEXT_DAY, "--yes",
    )  # fmt: skip
    for_programs = cli("discard", "--all", "--yes", "-o", "json")

    assert done.stdout == f"{OTHER_ID}  running  discarded 2, skipped 1, remaining 2 of 5\n"
    assert json.loads(for_programs.stdout) == given_up()
    assert [body for _, _, body in script.requests] == [
        {"filter": {
            "state": "failed", "type": "t", "source": "/s", "subject": "u", "error_type": "E", "handler": "h",
            "fingerprint": "f", "received_after": DAY, "received_before": NEXT_DAY,
        }},
        {"filter": {}},
    ]  # fmt: skip


def test_a_dry_run_says_how_many_would_be_discarded(cli: Cli, script: Any) -> None:
    script.answers = [(200, {"count": 3}, {})]

    assert cli("discard", "--all", "--dry-run").stdout == "3 events would be discarded\n"
    assert json.loads(cli("discard", "--all", "--dry-run", "-o", "json").stdout) == {"count": 3}
    assert [(path, body) for path, _, body in script.requests] == [
        ("/v1/discards", {"filter": {}, "dry_run": True}),
    ] * 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["replay"], "either event ids or a filter"),
        (["replay", "--state", "processed"], "--all for all in that state"),
        (["replay", EVENT_ID, "--error-type", "E"], "either event ids or a filter"),
        (["replay", EVENT_ID, "--all"], "either event ids or a filter"),
        (["replay", EVENT_ID, OTHER_ID, "--data", "1"], "one event id"),
        (["replay", "--all", "--data", "1"], "one event id"),
        (["replay", EVENT_ID, "--dry-run"], "goes with a filter"),
        (["replay", EVENT_ID, "--data", "{"], "not JSON"),
        (["discard"], "holdfast dead ls"),
        (["discard", "--state", "queued"], "--all for all in that state"),
        (["discard", EVENT_ID, "--error-type", "E"], "either event ids"),
        (["discard", EVENT_ID, "--all"], "either event ids"),
        (["discard", EVENT_ID, "--dry-run"], "goes with a filter"),
        (["dead", "groups", "-n", "0"], "greater than or equal to 1"),
    ],
)
def test_what_does_not_go_together_is_said_before_anything_is_asked(
    cli: Cli, script: Any, arguments: list[str], said: str
) -> None:
    done = cli(*arguments)

    assert (done.returncode, done.stdout, script.requests) == (2, "", [])
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_steps_and_groups_of_an_event_are_read_with_their_times(script: Any, client: Client) -> None:
    step = {"name": "charge", "handler": "h", "attempt": 2, "stored_at": DAY, "duration_ms": 12, "wake_at": None}
    group = {
        "group_id": OTHER_ID, "type": "all.done", "size": 3, "open": 1, "processed": 1, "dead": 1, "discarded": 0,
        "created_at": DAY, "completed_at": None, "of_a_newer_server": 1,
    }  # fmt: skip
    sleep = step | {"name": "a day", "wake_at": NEXT_DAY}
    script.answers = [(200, {"items": [step | {"result": [7]}, sleep]}, {}), (200, {"items": [group]}, {})]

    charged, slept = client.steps(EVENT_ID)
    [made] = client.groups(EVENT_ID)

    assert (charged.name, charged.result, charged.wake_at, charged.attempt) == ("charge", [7], None, 2)
    assert (slept.result, slept.wake_at) == (None, datetime(2026, 11, 25, tzinfo=UTC))
    assert (made.open, made.processed, made.dead, made.completed_at) == (1, 1, 1, None)
    assert [path for path, _, _ in script.requests] == [f"/v1/events/{EVENT_ID}/{each}" for each in ("steps", "groups")]
