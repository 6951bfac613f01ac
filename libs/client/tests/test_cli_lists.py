"""What lists, times and errors look like: at a terminal, in a pipe, and for programs."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from holdfast.client.cli_times import read_moment

Cli = Callable[..., Any]
EventBody = Callable[..., dict[str, Any]]

EVENT_ID = "01a20ce1-a999-7253-85bb-3c3e269307a2"
LONG = "com.acme." + "very." * 30 + "long"
NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


def progress(state: str = "running", replayed: int = 0, **changes: Any) -> dict[str, Any]:
    finished_at = None if state == "running" else "2026-11-24T09:32:00Z"
    body = {
        "replay_id": EVENT_ID, "state": state, "filter": {"state": "dead", "error_type": "KeyError"}, "rate_per_s": 10.0,
        "total": 4, "replayed": replayed, "skipped": 0, "remaining": 4 - replayed, "failures": 0, "last_error": None,
        "created_by": "0123456789abcdef", "created_at": "2026-11-24T09:30:00Z", "finished_at": finished_at,
    }  # fmt: skip
    return body | changes


def at_a_terminal(arguments: list[str], environment: dict[str, str], *, columns: int) -> str:
    """What a command writes to a terminal of this width."""
    environment = {name: value for name, value in environment.items() if name != "COLUMNS"} | {"TERM": "xterm-256color"}
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(arguments, stdin=follower, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    written = b""
    try:
        while part := os.read(leader, 65536):
            written += part
    except OSError:
        pass  # how Linux says that nobody writes there any more
    os.close(leader)
    assert process.wait(timeout=60) == 0, written
    return written.decode()


def test_a_list_has_headers_above_aligned_columns(cli: Cli, script: Any, event_body: EventBody) -> None:
    rows = [event_body(), event_body(state="processed", event={"type": LONG}, event_id="short")]
    script.answers = [(200, {"items": rows, "next_cursor": None}, {})]

    header, first, second = cli("events", "ls").stdout.splitlines()

    assert header.split("  ")[0] == "RECEIVED"
    for title, value in (("STATE", "queued"), ("EVENT ID", EVENT_ID)):
        assert header.index(title) == first.index(value)
    assert second.index(LONG) == header.index("TYPE")
    assert second.endswith(LONG), "all of it in a pipe"


def test_a_list_is_cut_to_the_terminal_and_its_ids_are_not(
    command: list[str], environment: dict[str, str], script: Any, event_body: EventBody
) -> None:
    script.answers = [(200, {"items": [event_body(event={"type": LONG})], "next_cursor": None}, {})]

    lines = at_a_terminal([*command, "events", "ls"], environment, columns=100).splitlines()
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]

    assert len(plain) == 2
    assert max(map(len, plain)) <= 100
    assert EVENT_ID in plain[1]
    assert "…" in plain[1]


@pytest.mark.parametrize(("no_color", "has_colors"), [("1", False), (None, True)])
def test_colors_are_for_terminals_that_want_them(
    command: list[str], environment: dict[str, str], script: Any, event_body: EventBody, no_color: str | None,
    has_colors: bool,
) -> None:  # fmt: skip
    script.answers = [(200, {"items": [event_body(state="processed")], "next_cursor": None}, {})]
    environment.pop("NO_COLOR")
    environment |= {"NO_COLOR": no_color} if no_color else {}

    shown = at_a_terminal([*command, "events", "ls"], environment, columns=120)
    piped = subprocess.run([*command, "events", "ls"], env=environment, capture_output=True, text=True, check=True)

    assert ("\x1b[32m" in shown) is has_colors
    assert "\x1b" not in piped.stdout


def test_nothing_is_said_on_stderr_and_to_programs_not_at_all(cli: Cli, script: Any) -> None:
    script.answers = [(200, {"items": [], "next_cursor": None}, {})]

    listed, for_programs = cli("events", "ls"), cli("events", "ls", "-o", "json")

    assert (listed.stdout, listed.stderr) == ("", "no event matches\n")
    assert (for_programs.returncode, for_programs.stdout, for_programs.stderr) == (0, "", "")


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604800), ("0s", 0)])
def test_a_duration_is_so_long_ago(text: str, seconds: int) -> None:
    assert datetime.fromisoformat(read_moment(text, NOW)) == NOW - timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["2026-11-24T09:30:00Z", "2026-11-24T09:30:00.123+01:00"])
def test_a_moment_stays_as_it_is(text: str) -> None:
    assert read_moment(text, NOW) == text


@pytest.mark.parametrize("text", ["1", "1w", "-1h", "1.5h", "yesterday", "2026-11-24", "999999999d", "\u0661h", "1h\n"])
def test_what_is_no_time_is_named_with_what_is_one(text: str) -> None:
    with pytest.raises(ValueError, match="write 90s, 15m, 1h or 7d") as refused:
        read_moment(text, NOW)

    assert repr(text) in str(refused.value)


@pytest.mark.parametrize("command", [["events", "ls"], ["dead", "ls"]])
def test_lists_take_durations_and_every_filter_of_the_api(cli: Cli, script: Any, command: list[str]) -> None:
    script.answers = [(200, {"items": [], "next_cursor": None}, {})]
    filters = {
        "source": "/s", "id": "1", "type": "t", "subject": "x", "audience": "a", "error_type": "E", "handler": "h",
        "fingerprint": "f",
    }  # fmt: skip
    options = [part for name, value in filters.items() for part in (f"--{name.replace('_', '-')}", value)]

    cli(*command, *options, "--after", "1h", "--before", "2026-11-24T09:30:00Z")

    query = {name: values[0] for name, values in parse_qs(urlsplit(script.requests[0][0]).query).items()}
    age = datetime.now(UTC) - datetime.fromisoformat(query.pop("received_after"))
    assert timedelta(hours=1) <= age < timedelta(hours=1, minutes=2)
    assert {name: query[name] for name in filters} == filters
    assert query["received_before"] == "2026-11-24T09:30:00Z"


def test_a_refusal_is_json_for_programs(cli: Cli, script: Any) -> None:
    problem = {"code": "forbidden", "detail": "this key lacks", "errors": [{"parameter": "x"}], "request_id": "r1"}
    script.answers = [(403, problem, {})]

    done = cli("events", "ls", "-o", "json")

    assert (done.returncode, done.stdout) == (1, "")
    assert json.loads(done.stderr) == {"status": 403, **problem, "exit_status": 1}


def test_an_event_that_is_refused_is_named_in_json(cli: Cli, script: Any) -> None:
    script.answers = [(409, {"code": "event_processing", "detail": "wait"}, {})]

    done = cli("discard", EVENT_ID, "--output=json")

    assert done.returncode == 1
    told = json.loads(done.stderr)
    assert (told["event_id"], told["code"], told["status"]) == (EVENT_ID, "event_processing", 409)


@pytest.mark.parametrize(
    ("arguments", "settings", "code", "status"),
    [
        (["events", "ls"], {"HOLDFAST_URL": "http://127.0.0.1:1"}, "unreachable", 1),
        (["events", "ls", "--no-such"], {}, "usage", 2),
        (["events", "ls", "--state", "lost"], {}, "usage", 2),
        (["events", "ls", "--after", "soon"], {}, "usage", 2),
        (["events", "ls"], {"HOLDFAST_API_KEY": ""}, "usage", 2),
        (["nothing"], {}, "usage", 2),
    ],
)
def test_other_failures_are_json_for_programs_too(
    cli: Cli, arguments: list[str], settings: dict[str, str], code: str, status: int
) -> None:
    done = cli(*arguments, "-o", "json", **settings)

    told = json.loads(done.stderr)
    assert (done.returncode, done.stdout, told["code"], told["exit_status"]) == (status, "", code, status)
    assert told["detail"]


def test_replays_are_listed(cli: Cli, script: Any) -> None:
    script.answers = [(200, {"items": [progress(replayed=2)], "next_cursor": None}, {})]

    listed = cli("replays", "ls", "--state", "running").stdout.splitlines()
    for_programs = cli("replays", "ls", "-n", "1", "-o", "json").stdout

    assert listed[0].split()[:3] == ["CREATED", "STATE", "REPLAY"]
    assert listed[1].split()[1:6] == ["running", EVENT_ID, "2", "0", "4"]
    assert listed[1].endswith("state=dead error_type=KeyError")
    assert json.loads(for_programs) == progress(replayed=2)
    assert [path for path, _, _ in script.requests] == ["/v1/replays?state=running&limit=50", "/v1/replays?limit=1"]


@pytest.mark.parametrize(("end", "status"), [("done", 0), ("cancelled", 1)])
def test_a_replay_is_followed_to_its_end(cli: Cli, script: Any, end: str, status: int) -> None:
    steps = [progress(), progress(), progress(replayed=2), progress(end, replayed=4)]
    script.answers = [(200, step, {}) for step in steps]

    done = cli("replays", "show", EVENT_ID, "--follow", "-o", "json")

    assert done.returncode == status
    assert [json.loads(line) for line in done.stdout.splitlines()] == [steps[0], *steps[2:]], "each change once"


def test_at_a_terminal_a_bar_shows_how_far_it_is(command: list[str], environment: dict[str, str], script: Any) -> None:
    script.answers = [(200, step, {}) for step in (progress(replayed=1), progress("done", replayed=4))]

    shown = at_a_terminal([*command, "replays", "show", EVENT_ID, "--follow"], environment, columns=120)

    assert "1/4" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert "replayed 4, skipped 0, remaining 0 of 4" in shown


def test_ctrl_c_ends_the_following_quietly(
    command: list[str], environment: dict[str, str], script: Any, tmp_path: Path
) -> None:
    script.answers = [(200, progress(), {})]
    process = subprocess.Popen(
        [*command, "replays", "show", EVENT_ID, "--follow"], env=environment, cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout is not None
    assert "running" in process.stdout.readline()

    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)

    assert (process.returncode, output, errors) == (130, "", "")
    assert {path for path, _, _ in script.requests} == {f"/v1/replays/{EVENT_ID}"}, "the replay goes on"
