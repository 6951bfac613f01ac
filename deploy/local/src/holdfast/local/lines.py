"""The lines of a stack's services, looked through when it has ended: each parses, has its ids, and nothing that is secret."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from holdfast.local.process import LIBPQ_NOTICES
from holdfast.runtime.telemetry import LINE_FIELDS, LINES_ABOUT_EVENTS

__all__ = ["PLANTED", "wrong_lines"]

PLANTED = "planted-5ec4e7"
"""Tests put it into what no log may have: payloads, keys, tokens, and texts of exceptions."""

EVERY = frozenset({"timestamp", "level", "message", "logger", "service.name", "service.version"})

OF_AN_ATTEMPT = frozenset({"event_id", "event_type", "tenant", "attempt", "handler"})

WITH_SPAN = frozenset({"span_id", "trace_id"})

MOST_PARSED = 20_000
"""Lines of a file that are parsed, from its begin and its end in equal parts: about a tenth of a second. Secrets are looked
for in all of it."""

NOT_OURS = (*LIBPQ_NOTICES, "import time:")
"""Lines that C code writes by itself: libpq, and Python where it is told to say how long imports take."""


def wrong_lines(logs: Path, *, secrets: Collection[str]) -> list[str]:
    """What is wrong with the lines of every file in a folder of logs, each with its file, number and text.

    A process that was killed may have left half a line at the end of its file.
    """
    return [f"{log.name}:{wrong}" for log in sorted(logs.glob("*.log")) for wrong in _of_file(log, (PLANTED, *secrets))]


def _of_file(log: Path, secrets: Collection[str]) -> Iterator[str]:
    text = log.read_text(errors="replace")
    lines = text.split("\n")[:-1]  # behind the last line's end is nothing, or half a line
    if any(secret in text for secret in secrets):
        for number, line in enumerate(text.split("\n"), 1):
            if any(secret in line for secret in secrets):
                yield f"{number}: a secret, or what a test has planted: {line}"
    half, origins = MOST_PARSED // 2, dict[object, object]()
    parsed = range(len(lines)) if len(lines) <= MOST_PARSED else [*range(half), *range(len(lines) - half, len(lines))]
    for index in parsed:
        if (wrong := _wrong(lines[index], origins)) is not None:
            yield f"{index + 1}: {wrong}: {lines[index]}"


def _wrong(line: str, origins: dict[object, object]) -> str | None:
    """``origins``: request and trace of events, as the lines of their attempts had them so far."""
    if line.startswith(NOT_OURS):
        return None
    try:
        fields = json.loads(line)
    except json.JSONDecodeError:
        return "no JSON"
    if not isinstance(fields, dict):
        return "no object"
    if missing := _required(fields) - fields.keys():
        return f"without {', '.join(sorted(missing))}"
    if fields["message"] in LINES_ABOUT_EVENTS and not fields.keys() & {"event_id", "event_ids"}:
        return "without the events that it is about"
    if "attempt" in fields:
        origin = (fields.get("request_id"), fields.get("trace_id"))
        if origins.setdefault(fields["event_id"], origin) != origin:
            return "with another request or trace than a line of the same event"
    return None


def _required(fields: dict[str, Any]) -> frozenset[str]:
    required = EVERY | LINE_FIELDS.get(fields.get("message", ""), frozenset())
    if "attempt" in fields:
        required |= OF_AN_ATTEMPT
    return required | WITH_SPAN if "span_id" in fields else required
