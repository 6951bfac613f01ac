"""How the console says things: moments, spans, numbers, states and payloads as text. Pure."""

import json
from datetime import UTC, datetime
from typing import Any

from holdfast.domain.state import State
from holdfast.domain.waiting import Reason

__all__ = [
    "REASONS",
    "REMEDIES",
    "STATES",
    "as_text",
    "brief",
    "bytes_text",
    "count_text",
    "pretty_json",
    "since",
    "span",
    "stamp",
]

STATES: dict[State, str] = {
    State.QUEUED: "Queued",
    State.PROCESSING: "Processing",
    State.FAILED: "Failed",
    State.DEAD: "Dead",
    State.PROCESSED: "Processed",
    State.DISCARDED: "Discarded",
}
"""Titles of the states, those that want an eye first."""

REASONS: dict[str, str] = {
    "cancelled": "cancelled by an operator",
    "key_missing": "its data is sealed with a key that its worker does not have",
    "no_handler": "no processor that was met serves this type",
    "recovered": "taken back from a worker that was lost",
    "released": "given back by a worker that was stopped",
    "replayed": "replayed by an operator",
    "sleeping": "its handler sleeps between two steps",
    "snoozed": "put off by its handler",
    "superseded": "a later event of its key took its place",
}
"""Why an event came into a state, where its history says so (``reason``)."""

REMEDIES: dict[Reason, str] = {
    Reason.LOST: "Nothing to do. If workers are lost again and again, look at what they ran last.",
    Reason.NO_HANDLER: "Deploy a handler for the type, or discard the event. When its time is over it is a dead letter.",
    Reason.NO_PROCESSOR: "Start a processor; if one runs, its log says why it does not reach PostgreSQL.",
    Reason.PAUSED: "Resume it under Handlers, or discard the event.",
    Reason.LIMIT: "Nothing to do: it runs when one of those ends. A limit is changed where its handler is declared.",
    Reason.RATE: "Nothing to do: it runs when there is room. A rate is changed where its handler is declared.",
    Reason.DRAINED: "Undrain a node, or start another processor.",
    Reason.SUSPECT: "Nothing to do: alone it can take no other event along if it ends its worker again.",
    Reason.BROKER_AWAY: "Bring Redis back for speed. Events are safe without it, and are taken every few seconds.",
    Reason.BACKLOG: "More processes or threads take it sooner; a slow handler shows under Handlers.",
}
"""What somebody can do about it, for the reasons where there is something to say."""

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))

_INDENT = "  "


def stamp(moment: datetime) -> str:
    """``2026-11-28 20:15:04 UTC``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def since(moment: datetime, now: datetime) -> str:
    """``4 min ago``, or ``in 4 min``."""
    seconds = (now - moment).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"{span(seconds)} ago" if seconds > 0 else f"in {span(-seconds)}"


def span(seconds: float) -> str:
    """A length of time in its largest unit, or two: ``350 ms``, ``4 s``, ``2 h 5 min``."""
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    left, words = int(seconds), []
    for size, name in _UNITS:
        if left >= size:
            words.append(f"{left // size} {name}")
            left %= size
    # The second unit tells little once there are days or hours of seconds.
    return " ".join(words[:2] if seconds >= 3600 else words[:1])


def count_text(number: int) -> str:
    """With thin spaces between thousands."""
    return f"{number:,}".replace(",", "\u202f")


def bytes_text(count: int) -> str:
    """``312 B``, ``4.2 KiB``."""
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:.1f} KiB" if count < 1024**2 else f"{count / 1024**2:.1f} MiB"


def as_text(value: Any) -> str:
    """A value of a detail as somebody reads it: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def brief(value: Any) -> str:
    """A value of a detail on one line, without the marks of JSON: ``state: dead, error_type: KeyError``."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {brief(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(brief(each) for each in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def pretty_json(text: str) -> str:
    """JSON with one member a line. Everything but the space between tokens stays as it was sent: all digits, every escape.

    ``text`` has to be JSON; a parser would change numbers and drop what is there twice.
    """
    out: list[str] = []
    depth, place, end = 0, 0, len(text)
    while place < end:
        char = text[place]
        if char == '"':
            stop = _end_of_string(text, place)
            out.append(text[place:stop])
            place = stop
            continue
        if char in "{[":
            closing = _next_token(text, place + 1)
            if text[closing : closing + 1] in ("}", "]"):
                out.append(char + text[closing])
                place = closing + 1
                continue
            depth += 1
            out.append(f"{char}\n{_INDENT * depth}")
        elif char in "}]":
            depth -= 1
            out.append(f"\n{_INDENT * depth}{char}")
        elif char == ",":
            out.append(f",\n{_INDENT * depth}")
        elif char == ":":
            out.append(": ")
        elif not char.isspace():
            out.append(char)
        place += 1
    return "".join(out)


def _end_of_string(text: str, start: int) -> int:
    place = start + 1
    while place < len(text) and text[place] != '"':
        place += 2 if text[place] == "\\" else 1
    return place + 1


def _next_token(text: str, place: int) -> int:
    while place < len(text) and text[place].isspace():
        place += 1
    return place
