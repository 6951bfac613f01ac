"""Statistics: the client and its commands against a real server that answers from a script."""

import json
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from datetime import UTC, datetime
from fcntl import ioctl
from typing import Any

import pytest

from holdfast.client import Client, Times
from holdfast.client.render_stats import span, sparkline

Cli = Callable[..., Any]

LONG = "a.handler.whose.name.is.longer.than.any.column.has.room.for"


def point(minute: int, **flow: int) -> dict[str, Any]:
    zeros = dict.fromkeys(("accepted", "processed", "failed", "retried", "dead", "discarded", "replayed", "lost"), 0)
    return {"at": f"2026-11-24T09:{minute:02}:00Z", **zeros, **flow}


def stats(**changes: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
    series = [point(minute, accepted=minute, processed=minute // 2) for minute in range(60)]
    body = {
        "counted_at": "2026-11-24T09:59:30Z", "lag_seconds": 0, "last_hour": {"accepted": 1770},
        "per_second": {"accepted": 12.25, "processed": 11.0, "failed": 0.5},
        "events": {"queued": 3, "processing": 2, "failed": 1, "dead": 9},
        "oldest_due": {"seconds": 72.0, "is_at_most": False},
        "window": {"name": "hour", "since": series[0]["at"], "step_seconds": 60, "total": {}, "series": series},
    }  # fmt: skip
    return 200, body | changes, {}


def row(name: str | None, kind: str = "handler", **changes: Any) -> dict[str, Any]:
    times = {"p50_ms": 31.4, "p95_ms": 2400.0}
    counts = {"processed": 90, "failed": 5, "dead": 2, "lost": 1, "per_second": 1.234}
    return {
        "kind": kind, "name": name, **counts, "run": times, "wait": {"p50_ms": 0.5, "p95_ms": 480_000.0},
        "end_to_end": {"p50_ms": None, "p95_ms": None}, "last_seen_at": "2026-11-24T09:59:30Z", **changes,
    }  # fmt: skip


def handlers(*items: dict[str, Any], served: bool = False) -> tuple[int, dict[str, Any], dict[str, str]]:
    typo = {
        "type": "com.\x1btypo", "events": 500, "is_at_least": True, "oldest_seconds": 3700.0, "is_served": served,
    }  # fmt: skip
    return 200, {"window": "hour", "items": list(items), "unserved": [typo]}, {}


ROWS = (row("book-order"), row(LONG), row("com.unknown", "type"), row(None, "other"))


def test_the_client_reads_what_the_api_tells(script: Any) -> None:
    script.answers = [stats(), handlers(*ROWS)]

    with Client(script.url, "hf_key") as client:
        told, found = client.stats("day"), client.handlers("quarter")

    assert [path for path, _, _ in script.requests] == ["/v1/stats?window=day", "/v1/handlers?window=quarter"]
    assert told.per_second["accepted"] == 12.25
    assert told.oldest_due_seconds == 72
    assert told.series[3].accepted == 3
    assert told.series[3].at == datetime(2026, 11, 24, 9, 3, tzinfo=UTC)
    assert [item.name for item in found.items] == ["book-order", LONG, "com.unknown", None]
    assert found.items[0].run == Times(31.4, 2400.0)
    assert (found.unserved[0].events, found.unserved[0].is_at_least) == (500, True)


def test_stats_at_no_terminal_are_one_picture_of_eighty_columns(cli: Cli, script: Any) -> None:
    script.answers = [stats(), handlers(*ROWS)]

    done = cli("stats", COLUMNS="80")

    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80, done.stdout
    assert lines[0].startswith("12.2/s accepted   11.0/s processed   0.5/s failed")
    assert lines[1] == "3 queued   2 processing   1 failed   9 dead   oldest due 1.2m"
    assert lines[2].startswith("accepted  ▁▂")
    assert lines[2].endswith("█ 1770")
    table = "\n".join(line.rstrip() for line in lines[6:])
    assert "book-order                      1.23       8     2  31ms  2.4s        8m" in table
    assert "all others" in table
    assert "a.handler.whose.name.is.lon…" in table
    assert "nobody serves com. typo: at least 500 waiting, the oldest for 1.03h" in table


def test_counters_that_are_behind_are_told(cli: Cli, script: Any) -> None:
    script.answers = [stats(lag_seconds=3600), handlers()]

    done = cli("stats")

    assert "counted up to 1h ago; is maintenance running?" in done.stdout
    assert "no handler has run in this time" in done.stdout


def test_a_type_that_a_processor_serves_by_now_is_no_warning(cli: Cli, script: Any) -> None:
    script.answers = [handlers(*ROWS, served=True)]

    assert "nobody serves" not in cli("handlers", "ls").stdout


def test_stats_for_programs_are_one_line(cli: Cli, script: Any) -> None:
    script.answers = [stats(), handlers(*ROWS)]

    done = cli("stats", "-o", "json")

    told = json.loads(done.stdout)
    assert told["stats"]["per_second"]["accepted"] == 12.25
    assert told["handlers"]["items"][0]["name"] == "book-order"


def test_handlers_are_listed_over_a_window(cli: Cli, script: Any) -> None:
    script.answers = [handlers(*ROWS)]

    table, lines = cli("handlers", "ls", "--window", "day"), cli("handlers", "ls", "-o", "json")

    assert script.requests[0][0] == "/v1/handlers?window=day"
    assert table.stdout.splitlines()[0].split() == ["HANDLER", "RATE/S", "FAILED", "DEAD", "P50", "P95", "WAIT", "P95"]
    assert [json.loads(line)["name"] for line in lines.stdout.splitlines()] == [each["name"] for each in ROWS]
    assert cli("handlers", "ls", "--window", "week").returncode == 2


def test_stats_at_a_terminal_are_live_until_q(script: Any, environment: dict[str, str], command: list[str]) -> None:
    script.answers = [stats(), handlers(*ROWS), stats(), handlers(*ROWS)]
    mine, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    settings = {name: value for name, value in environment.items() if name != "COLUMNS"} | {"TERM": "xterm"}
    process = subprocess.Popen([*command, "stats"], stdin=theirs, stdout=theirs, stderr=theirs, env=settings)
    os.close(theirs)
    try:
        first = read_until(mine, "q to leave")
        read_until(mine, "q to leave")  # the next picture
        os.write(mine, b"q")
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(mine)

    assert "12.2/s" in first
    assert "book-order" in first
    assert len(script.requests) >= 4


def read_until(terminal: int, words: str) -> str:
    deadline, text = time.monotonic() + 30, ""
    while words not in text:
        assert time.monotonic() < deadline, text
        if select.select([terminal], [], [], 1)[0]:
            text += os.read(terminal, 65536).decode(errors="replace")
    return text


def test_a_sparkline_has_a_bar_for_each_value() -> None:
    assert sparkline([0, 1, 50, 100]) == "▁▂▅█"
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([]) == ""


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (None, "-"),
        (0.5, "0.5ms"),
        (31.4, "31ms"),
        (999, "999ms"),
        (2400, "2.4s"),
        (480_000, "8m"),
        (3_600_000, "1h"),
    ],
)
def test_a_span_is_short(milliseconds: float | None, text: str) -> None:
    assert span(milliseconds) == text
