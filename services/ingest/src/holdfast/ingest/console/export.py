"""Events as a file: CSV for a spreadsheet, JSON lines as the API has them. Pure; never with the data of an event."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flask import json

from holdfast.ingest.http.views import event_view
from holdfast.storage.event_views import EventView

__all__ = ["FORMATS", "MAX_BYTES", "MAX_EVENTS", "as_csv", "as_jsonl"]

MAX_EVENTS = 10_000

MAX_BYTES = 16 * 1024 * 1024
"""Of a file: a sender may have made each of an event's texts long."""

_COLUMNS: Mapping[str, Callable[[dict[str, Any]], Any]] = {
    "event_id": lambda event: event["event_id"],
    "state": lambda event: event["state"],
    "type": lambda event: event["event"]["type"],
    "source": lambda event: event["event"]["source"],
    "subject": lambda event: event["event"].get("subject"),
    "audience": lambda event: event["event"].get("audience"),
    "id": lambda event: event["event"]["id"],
    "attempt": lambda event: event["attempt"],
    "received_at": lambda event: event["received_at"],
    "available_at": lambda event: event["available_at"],
    "finished_at": lambda event: event["finished_at"],
    "error_type": lambda event: (event["last_error"] or {}).get("type"),
    "error": lambda event: (event["last_error"] or {}).get("message"),
    "handler": lambda event: (event["last_error"] or {}).get("handler"),
    "replay_of": lambda event: event["replay_of"],
    "parent_id": lambda event: event["parent_id"],
    "request_id": lambda event: event["request_id"],
    "trace_id": lambda event: event["trace_id"],
}

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""With these a spreadsheet begins a formula (OWASP, "CSV Injection")."""


def as_jsonl(views: Iterable[EventView], *, is_operator: bool) -> bytes:
    """A line for each event, as ``GET /v1/events`` has it."""
    return _bounded(json.dumps(each) + "\n" for each in _events(views, is_operator))


def as_csv(views: Iterable[EventView], *, is_operator: bool) -> bytes:
    """A line with the names, and one for each event. What a spreadsheet would take for a formula begins with ``'``."""
    header = _line(_COLUMNS)
    rows = (_line(_cell(of(each)) for of in _COLUMNS.values()) for each in _events(views, is_operator))
    return _bounded([header, *rows])


def _events(views: Iterable[EventView], is_operator: bool) -> Iterable[dict[str, Any]]:
    return (event_view(view, is_operator=is_operator) for view in views)


def _bounded(lines: Iterable[str]) -> bytes:
    """Whole lines, up to the bound."""
    file = bytearray()
    for line in lines:
        encoded = line.encode(errors="backslashreplace")
        if len(file) + len(encoded) > MAX_BYTES:
            break
        file += encoded
    return bytes(file)


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _line(cells: Iterable[str]) -> str:
    written = io.StringIO()
    csv.writer(written).writerow(list(cells))
    return written.getvalue()


FORMATS: Mapping[str, tuple[str, Callable[..., bytes]]] = {
    "csv": ("text/csv; charset=utf-8", as_csv),
    "jsonl": ("application/jsonl", as_jsonl),
}
"""Content type and writer of each format."""
