"""How updates and events look on a terminal."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from holdfast.client.events import StoredEvent

__all__ = ["STYLES", "error_words", "event_line", "one_line", "seconds", "update_line"]

STYLES = {
    "queued": "cyan",
    "processing": "yellow",
    "processed": "green",
    "failed": "red",
    "dead": "bold red",
    "discarded": "dim",
}


def update_line(event: Mapping[str, Any]) -> Text:
    """One update as a line: time, state, version, type, end of the id, and progress, error, result or reason."""
    state = event["state"]
    line = Text()
    line.append(f"{event['at'][11:23]}  ", "dim")
    line.append(f"{state:<11}", STYLES.get(state, ""))
    line.append(f"v{event['version']:<3}")
    line.append(f"{one_line(event['type']):<44} ")
    line.append(event["id"][-12:], "dim")
    if note := _note(event["detail"]):
        line.append(f"  {one_line(note)}")
    return line


def event_line(event: StoredEvent) -> Text:
    """One event of a list: when it was received, its state, id, type and last error."""
    state, error = event.state, event.last_error
    line = Text()
    line.append(f"{seconds(event.received_at)}  ", "dim")
    line.append(f"{state:<11}", STYLES.get(state, ""))
    line.append(f"{event.event_id}  {one_line(event.cloudevent['type'])}")
    if error:
        line.append(f"  {error_words(error.type, error.message)}", "red")
    return line


def error_words(type_: object, message: object) -> str:
    """``type: message``; the type alone where the key may not see the message."""
    return one_line(f"{type_}: {message}" if message else str(type_))


def one_line(text: str) -> str:
    """Replace by spaces what would move the cursor or change the terminal: the text is a server's or a handler's."""
    return "".join(char if char.isprintable() else " " for char in text)


def seconds(time: datetime) -> str:
    """A time in UTC, to the second."""
    return time.astimezone(UTC).isoformat()[:19]


def _note(detail: Mapping[str, Any]) -> str:
    if progress := detail.get("progress"):
        return f"{progress['fraction']:.0%} {progress.get('message') or ''}".strip()
    if error := detail.get("error"):
        retry = detail.get("retry_in_seconds")
        return error_words(error["type"], error.get("message")) + (
            f" (again in {retry:.1f} s)" if retry is not None else ""
        )
    if detail.get("result") is not None:
        return json.dumps(detail["result"], ensure_ascii=False)[:120]
    if by := detail.get("superseded_by"):
        return f"superseded by {by}"
    return str(detail.get("reason", ""))
