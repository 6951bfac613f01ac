"""Schedules: the client and its commands against a real server that answers from a script."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from holdfast.client import ApiProblem, Client

Cli = Callable[..., Any]

EVENT_ID = "01a20ce1-a999-7253-85bb-3c3e269307a2"


def schedule(name: str = "daily-report", **changes: Any) -> dict[str, Any]:
    return {
        "name": name, "cron": "0 7 * * mon-fri", "words": "At 07:00 on Monday through Friday", "timezone": "Europe/Istanbul",
        "type": "com.[red]acme", "source": f"/holdfast/schedules/{name}", "subject": "\x1b[2Js", "audience": None,
        "missed": "latest", "overlap": "allow", "paused": False, "declared": False, "created_by": "abcdefghijkl",
        "created_at": "2026-11-28T09:30:00Z", "next_at": "2026-11-30T04:00:00Z", "last_at": "2026-11-27T04:00:00Z",
        "last_event_id": EVENT_ID, "skipped": 2, "failures": 0, "last_error": None, "links": {}, **changes,
    }  # fmt: skip


def whole(**changes: Any) -> dict[str, Any]:
    return schedule(next=["2026-11-30T04:00:00Z", "2026-12-01T04:00:00Z"], data={"a": "\x1b[2J"}, **changes)


RAN = {"event_id": EVENT_ID, "state": "queued", "version": 1, "duplicate": False, "enqueued": True}


@pytest.fixture
def client(script: Any) -> Iterator[Client]:
    with Client(script.url, "hf_key") as made:
        yield made


def asked(script: Any) -> tuple[str, Any]:
    path, _, sent = script.requests[-1]
    return path, sent


def test_a_schedule_is_read_with_its_times(script: Any, client: Client) -> None:
    script.answers = [(200, whole(), {})]

    found = client.schedule("daily-report")

    assert asked(script) == ("/v1/schedules/daily-report", None)
    assert (found.name, found.cron, found.timezone, found.is_paused, found.skipped) == (
        "daily-report", "0 7 * * mon-fri", "Europe/Istanbul", False, 2,
    )  # fmt: skip
    assert found.next == (datetime(2026, 11, 30, 4, tzinfo=UTC), datetime(2026, 12, 1, 4, tzinfo=UTC))
    assert (found.next_at, found.last_event_id) == (found.next[0], EVENT_ID)
    assert found.raw["data"] == {"a": "\x1b[2J"}


def test_schedules_are_listed_over_pages(script: Any, client: Client) -> None:
    script.answers = [
        (200, {"items": [schedule("a"), schedule("b")], "next_cursor": "b"}, {}),
        (200, {"items": [schedule("c", next_at=None)], "next_cursor": None}, {}),
    ]

    found = list(client.schedules())

    assert [(each.name, each.next_at is None) for each in found] == [("a", False), ("b", False), ("c", True)]
    assert asked(script)[0] == "/v1/schedules?limit=200&cursor=b"


@pytest.mark.parametrize(
    ("act", "path", "sent"),
    [
        (lambda client: client.put_schedule("a b/c", {"cron": "* * * * *", "type": "t"}), "/v1/schedules/a%20b%2Fc",
         {"cron": "* * * * *", "type": "t"}),
        (lambda client: client.delete_schedule("x"), "/v1/schedules/x", None),
        (lambda client: client.pause_schedule("x"), "/v1/schedules/x/pause", None),
        (lambda client: client.resume_schedule("x"), "/v1/schedules/x/resume", None),
    ],
)  # fmt: skip
def test_a_change_answers_with_the_schedule(
    script: Any, client: Client, act: Callable[[Client], Any], path: str, sent: Any
) -> None:
    script.answers = [(200, whole(), {})]

    assert act(client).raw == whole()
    assert asked(script) == (path, sent)


def test_running_one_is_asked_for_once_however_often_it_is_sent(script: Any, client: Client) -> None:
    script.answers = [(503, {"code": "database_unavailable", "detail": "away"}, {"Retry-After": "0"}), (202, RAN, {})]

    assert client.run_schedule("x").event_id == EVENT_ID

    keys = {headers["Idempotency-Key"] for _, headers, _ in script.requests}
    assert (len(script.requests), len(keys)) == (2, 1)


def test_a_refusal_is_a_problem_with_its_remedy(script: Any, client: Client) -> None:
    script.answers = [(409, {"code": "schedule_declared", "detail": "handlers declare this schedule"}, {})]

    with pytest.raises(ApiProblem, match="handlers declare this schedule") as refused:
        client.put_schedule("x", {})
    assert refused.value.code == "schedule_declared"


def test_schedules_are_shown_in_aligned_columns(script: Any, cli: Cli) -> None:
    listed = [
        schedule(),
        schedule("b", paused=True, next_at=None, last_at=None, last_event_id=None),
        schedule("c", failures=2),
    ]
    script.answers = [(200, {"items": listed, "next_cursor": None}, {})]

    done = cli("schedules", "ls")

    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert lines[0].split()[:5] == ["NAME", "STATE", "CRON", "ZONE", "NEXT"]
    assert [line[lines[0].index("STATE") :].split()[0] for line in lines[1:]] == ["active", "paused", "failing"]
    assert EVENT_ID in lines[1]
    assert lines[1].endswith("com.[red]acme")
    assert "\x1b" not in done.stdout


def test_without_schedules_the_command_that_makes_one_is_named(script: Any, cli: Cli) -> None:
    script.answers = [(200, {"items": [], "next_cursor": None}, {})]

    done = cli("schedules", "ls")

    assert (done.returncode, done.stdout) == (0, "")
    assert "holdfast schedules set --help" in done.stderr


@pytest.mark.parametrize("command", [("ls",), ("show", "x"), ("rm", "x"), ("pause", "x"), ("resume", "x")])
def test_programs_get_the_answer_as_it_came(script: Any, cli: Cli, command: tuple[str, ...]) -> None:
    script.answers = [(200, {"items": [whole()], "next_cursor": None} if command == ("ls",) else whole(), {})]

    assert json.loads(cli("schedules", *command, "-o", "json").stdout) == whole()


def test_one_is_shown_with_its_data_and_its_next_ticks(script: Any, cli: Cli) -> None:
    script.answers = [(200, whole(), {})]

    lines = cli("schedules", "show", "daily-report").stdout.splitlines()

    assert lines[0] == "daily-report  At 07:00 on Monday through Friday"
    shown = [line.split(maxsplit=1) for line in lines[1:]]
    assert ["timezone", "Europe/Istanbul"] in shown
    assert ["type", "com.[red]acme"] in shown
    assert [line[0] for line in shown].count("next") == 1
    assert "\x1b" not in "".join(lines)
    assert len(lines) == 1 + sum(value is not None for key, value in whole().items() if key not in (
        "name", "words", "links", "next", "next_at",
    )) + 2  # fmt: skip


def test_one_is_made_with_what_was_given_and_nothing_else(script: Any, cli: Cli, tmp_path: Any) -> None:
    script.answers = [(201, whole(), {})]
    (tmp_path / "data.json").write_text('{"a": 1}')

    done = cli(
        "schedules", "set", "daily-report", "--cron", "0 7 * * *", "--tz", "Europe/Istanbul", "--type", "t", "--missed",
        "all", "--data", f"@{tmp_path}/data.json",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert asked(script) == ("/v1/schedules/daily-report", {
        "cron": "0 7 * * *", "timezone": "Europe/Istanbul", "type": "t", "missed": "all", "overlap": "allow",
        "data": {"a": 1},
    })  # fmt: skip


@pytest.mark.parametrize(
    ("options", "window"),
    [
        (
            ["--debounce", "30", "--debounce-key", "k", "--debounce-max", "60"],
            {"debounceseconds": 30, "debouncekey": "k", "debouncemaxseconds": 60},
        ),
        (["--unique", "60", "--unique-key", "k"], {"uniqueseconds": 60, "uniquekey": "k"}),
    ],
)
def test_one_is_made_with_a_window(script: Any, cli: Cli, options: list[str], window: dict[str, Any]) -> None:
    script.answers = [(201, whole(**window), {})]

    done = cli("schedules", "set", "poll", "--cron", "* * * * *", "--type", "t", *options)

    _, sent = asked(script)
    assert {name: value for name, value in sent.items() if name in window} == window
    assert len(sent) == 5 + len(window), sent
    shown = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert all([name, str(value)] in shown for name, value in window.items()), done.stdout


def test_what_is_wrong_is_told_with_its_field(script: Any, cli: Cli) -> None:
    error = {"pointer": "/cron", "code": "invalid_value", "detail": "has 4 fields", "received": "'0 7 * *'"}
    script.answers = [(400, {"code": "invalid_request", "detail": "send {…}", "errors": [error]}, {})]

    done = cli("schedules", "set", "x", "--cron", "0 7 * *", "--type", "t")

    assert done.returncode == 1
    assert "/cron: has 4 fields" in done.stderr


@pytest.mark.parametrize(
    ("command", "answer", "line"),
    [
        ("rm", (200, whole(), {}), "daily-report  deleted"),
        ("pause", (200, whole(), {}), "daily-report  paused"),
        ("run", (202, RAN, {}), f"{EVENT_ID}  queued"),
    ],
)
def test_a_change_is_one_line(script: Any, cli: Cli, command: str, answer: Any, line: str) -> None:
    script.answers = [answer]

    assert cli("schedules", command, "daily-report").stdout == f"{line}\n"


def test_a_resumed_one_says_when_it_comes(script: Any, cli: Cli) -> None:
    script.answers = [(200, whole(), {})]

    assert cli("schedules", "resume", "daily-report").stdout.startswith("daily-report  active  next ")


def test_what_was_run_is_told_to_programs(script: Any, cli: Cli) -> None:
    script.answers = [(202, RAN, {})]

    assert json.loads(cli("schedules", "run", "x", "-o", "json").stdout) == RAN
