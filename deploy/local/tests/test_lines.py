"""Looking through the lines that a stack has written."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from holdfast.local.lines import PLANTED, wrong_lines
from holdfast.local.stack import Stack

LINE = {
    "timestamp": "2026-11-28T10:00:00Z", "level": "info", "message": "started", "logger": "shop", "service.name": "processor",
    "service.version": "1",
}  # fmt: skip

ATTEMPT = {"event_id": "1", "event_type": "shop.sold", "tenant": "acme", "attempt": 1, "handler": "sell"}


def written(folder: Path, *lines: str | dict[str, Any], end: str = "") -> Path:
    """A folder of logs with one file, of these lines and what stands behind the last line's end."""
    texts = [line if isinstance(line, str) else json.dumps(LINE | line) for line in lines]
    (folder / "processor.log").write_text("".join(f"{text}\n" for text in texts) + end)
    return folder


def test_lines_with_all_that_they_need_are_not_wrong(tmp_path: Path) -> None:
    lines: list[str | dict[str, Any]] = [
        {}, ATTEMPT, ATTEMPT | {"event_id": "2", "message": "event processed", "trace_id": "a", "span_id": "b"},
        {"message": "events recovered", "event_ids": ["1", "2"]}, "WARNING:  what a server says",
        "FATAL:  terminating connection due to administrator command", "import time:  1 | 2 | os",
    ]  # fmt: skip

    assert wrong_lines(written(tmp_path, *lines), secrets=["secret"]) == []


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("printed", "no JSON"),
        ("3", "no object"),
        (json.dumps({"message": "started"}), "without level, logger, service.name, service.version, timestamp"),
        ({"message": "event processed"}, "without attempt, event_id, event_type, handler, tenant"),
        ({"attempt": 1, "event_id": "1", "tenant": "acme"}, "without event_type, handler"),
        ({"span_id": "b"}, "without trace_id"),
        ({"message": "event accepted", "event_id": "1", "event_type": "t", "tenant": "acme"}, "without request_id"),
        ({"message": "events recovered", "queued": 2}, "without the events that it is about"),
        ({"reason": f"no such order: {PLANTED}"}, "a secret, or what a test has planted"),
        ({"reason": "Bearer hf_1_secret"}, "a secret, or what a test has planted"),
    ],
)
def test_a_line_that_is_wrong_is_told_with_its_place_and_text(
    tmp_path: Path, line: str | dict[str, Any], wrong: str
) -> None:
    [told] = wrong_lines(written(tmp_path, {}, line), secrets=["secret"])

    assert told.startswith(f"processor.log:2: {wrong}: ")


@pytest.mark.parametrize("other", [{}, {"request_id": "r"}, {"request_id": "r", "trace_id": "u"}])
def test_lines_of_an_event_have_the_same_request_and_trace(tmp_path: Path, other: dict[str, Any]) -> None:
    [told] = wrong_lines(
        written(tmp_path, ATTEMPT | {"request_id": "r", "trace_id": "t"}, ATTEMPT | other), secrets=[]
    )  # fmt: skip

    assert told.startswith("processor.log:2: with another request or trace than a line of the same event")


def test_half_a_line_is_allowed_at_the_end_alone(tmp_path: Path) -> None:
    half = json.dumps(LINE)[:20]

    assert wrong_lines(written(tmp_path, {}, end=half), secrets=[]) == []
    assert len(wrong_lines(written(tmp_path, half, {}), secrets=[])) == 1
    assert len(wrong_lines(written(tmp_path, {}, end=PLANTED), secrets=[])) == 1


def test_a_long_log_is_looked_through_in_little_time(tmp_path: Path) -> None:
    written(tmp_path, *[{}] * 200_000, "printed")
    began = time.process_time()

    assert len(wrong_lines(tmp_path, secrets=["secret"] * 7)) == 1

    assert time.process_time() - began < 2


def test_every_stack_is_looked_through_when_it_has_stopped(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    written(stack.logs, {}, {"reason": f"redis://:{stack.redis.password}@127.0.0.1"})

    with pytest.raises(AssertionError, match=r"processor\.log:2: a secret"):
        stack.stop()
