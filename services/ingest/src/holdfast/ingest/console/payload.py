"""An event's data as a page shows it. It is a stranger's: it goes through the template's escaping like all else."""

import json
from dataclasses import dataclass

from holdfast.domain.data import Data, unwrapped
from holdfast.domain.event import StoredEvent, UnreadableEvent
from holdfast.ingest.console.words import pretty_json

__all__ = ["MAX_SHOWN_CHARACTERS", "Payload", "shown"]

MAX_SHOWN_CHARACTERS = 100_000
"""Of a payload in a page; the download has all of it."""

MAX_SHOWN_BYTES = 512
"""Of data that is no text."""


@dataclass(frozen=True, slots=True)
class Payload:
    """What is shown. ``text`` is ``None`` for an event without data. ``kind`` is ``json``, ``text`` or ``bytes``."""

    text: str | None
    kind: str
    size: int
    media_type: str | None
    is_cut: bool = False
    is_raw: bool = False


def shown(event: StoredEvent, *, is_raw: bool) -> Payload:
    """The data of an event; JSON with one member a line unless it is wanted as it was sent."""
    if isinstance(event, UnreadableEvent):
        return Payload(f"sealed: {event.fault}", "text", 0, event.datacontenttype)
    if event.content is None:
        return Payload(None, "text", 0, event.datacontenttype)
    stored = unwrapped(Data(event.content, event.is_json, event.datacontenttype))
    content = stored.content or b""
    text, kind, is_all = _text_of(content, is_json=stored.is_json, is_raw=is_raw)
    is_cut = len(text) > MAX_SHOWN_CHARACTERS or not is_all
    return Payload(text[:MAX_SHOWN_CHARACTERS], kind, len(content), stored.content_type, is_cut, is_raw)


def _text_of(content: bytes, *, is_json: bool, is_raw: bool) -> tuple[str, str, bool]:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return content[:MAX_SHOWN_BYTES].hex(" "), "bytes", len(content) <= MAX_SHOWN_BYTES
    if not (is_json or _is_json(text)):
        return text, "text", True
    return text if is_raw else pretty_json(text), "json", True


def _is_json(text: str) -> bool:
    """A sender's media type may say less than is true."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
