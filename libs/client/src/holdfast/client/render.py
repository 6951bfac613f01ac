"""How updates look on a terminal."""

import json
import shlex
from typing import Any

from rich.text import Text

__all__ = ["event_line", "group_line", "one_line", "update_line"]

STYLES = {
    "queued": "cyan",
    "processing": "yellow",
    "processed": "green",
    "failed": "red",
    "dead": "bold red",
    "discarded": "dim",
}


def update_line(event: dict[str, Any]) -> Text:
    """One update as a line: time, state, version, type, id and what is worth knowing beside."""
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


def event_line(view: dict[str, Any]) -> Text:
    """One event of a list: when it came, its state, attempt, type, id, and its last error."""
    state, error = view["state"], view.get("last_error")
    line = Text()
    line.append(f"{view['received_at'][:19]}  ", "dim")
    line.append(f"{state:<11}", STYLES.get(state, ""))
    line.append(f"{view['event_id']}  {one_line(view['event']['type'])}")
    if error:
        line.append(f"  {error_words(error['type'], error.get('message'))}", "red")
    return line


def group_line(group: dict[str, Any]) -> Text:
    """Dead letters of one cause: how many, what, where, the last time, one of them, and what replays exactly these."""
    sample = group["sample"]
    line = Text()
    line.append(f"{group['count']:>7}  ", "bold")
    line.append(one_line(str(group["error_type"])), "bold red")
    line.append(f"  in {one_line(group['handler'])}" if group["handler"] else "  before any handler")
    line.append(f"  last {group['last_at'][:19]}", "dim")
    line.append(f"  {error_words(sample['event_id'], sample.get('message'))}")
    options = " ".join(
        f"--{name.replace('_', '-')} {shlex.quote(one_line(str(value)))}"
        for name, value in group["filter"].items()
        if name != "state"
    )
    line.append(f"  holdfast replay {options}", "dim")
    return line


def error_words(type_: object, message: object) -> str:
    """``type: message``; the type alone where the key may not see the message."""
    return one_line(f"{type_}: {message}" if message else str(type_))


def one_line(text: str) -> str:
    """Text of a server or a handler, without what would move the cursor or change the terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def _note(detail: dict[str, Any]) -> str:
    if progress := detail.get("progress"):
        return f"{progress['fraction']:.0%} {progress.get('message') or ''}".strip()
    if error := detail.get("error"):
        retry = detail.get("retry_in_seconds")
        return error_words(error["type"], error.get("message")) + (
            f" (again in {retry:.1f} s)" if retry is not None else ""
        )
    if detail.get("result") is not None:
        return json.dumps(detail["result"], ensure_ascii=False)[:120]
    return str(detail.get("reason", ""))
