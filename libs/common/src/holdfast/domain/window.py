"""Windows: of events with one key only the last runs (debounce), or only the first (unique). Pure.

An event asks for one by extension attributes, which are the same from a producer, a handler and an application. A key belongs
to its tenant and to the event's type: events of two types never meet in a window.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

from holdfast.domain.names import MAX_NAME_BYTES, is_text

__all__ = [
    "DEBOUNCE_KEY", "DEBOUNCE_MAX_SECONDS", "DEBOUNCE_SECONDS", "MAX_FACTOR", "MOST_DEBOUNCE_SECONDS", "MOST_MAX_SECONDS",
    "MOST_UNIQUE_SECONDS", "UNIQUE_KEY", "UNIQUE_SECONDS", "WINDOW_ATTRIBUTES", "Kind", "Window", "debounce_seconds",
    "window_faults", "window_of",
]  # fmt: skip

DEBOUNCE_SECONDS = "debounceseconds"
DEBOUNCE_KEY = "debouncekey"
DEBOUNCE_MAX_SECONDS = "debouncemaxseconds"
UNIQUE_SECONDS = "uniqueseconds"
UNIQUE_KEY = "uniquekey"

MOST_DEBOUNCE_SECONDS = 24 * 3600
MOST_MAX_SECONDS = 7 * 24 * 3600
MOST_UNIQUE_SECONDS = 30 * 24 * 3600

MAX_FACTOR = 10
"""The longest wait, in ``debounceseconds``, where the event does not say it."""

_SECONDS = {
    DEBOUNCE_SECONDS: MOST_DEBOUNCE_SECONDS,
    DEBOUNCE_MAX_SECONDS: MOST_MAX_SECONDS,
    UNIQUE_SECONDS: MOST_UNIQUE_SECONDS,
}

_NEEDS = {DEBOUNCE_KEY: DEBOUNCE_SECONDS, DEBOUNCE_MAX_SECONDS: DEBOUNCE_SECONDS, UNIQUE_KEY: UNIQUE_SECONDS}

WINDOW_ATTRIBUTES = frozenset(_SECONDS) | frozenset(_NEEDS)

_DELIVER_AT = "deliverat"
_MAX_DIGITS = 10
_SHOWN = 40
"""Characters of a wrong value that are sent back."""


class Kind(StrEnum):
    """What a window is for. Stored as its text value."""

    DEBOUNCE = "debounce"
    """A later event replaces the one that waits, and is due ``seconds`` after it came."""

    UNIQUE = "unique"
    """For ``seconds`` after the first event further ones are duplicates of it, whatever became of it."""


@dataclass(frozen=True, slots=True)
class Window:
    """What an event asks for. ``max_seconds``: the longest wait since the first replaced event came; of a debounce."""

    kind: Kind
    key: str
    seconds: int
    max_seconds: int = 0

    def id_for(self, tenant: str, type_: str) -> UUID:
        """The window's own id: 128 bits of SHA-256, so that a row and its index entry are small however long the key is."""
        text = json.dumps([tenant, self.kind, type_, self.key], ensure_ascii=False)
        return UUID(bytes=hashlib.sha256(text.encode()).digest()[:16])

    def until(self, now: datetime) -> datetime:
        """When a unique window ends that begins now."""
        return now + timedelta(seconds=self.seconds)

    def due_at(self, *, since: datetime, now: datetime) -> datetime:
        """When a debounced event that comes now is due; ``since``: when the first one came that waited."""
        return min(now + timedelta(seconds=self.seconds), since + timedelta(seconds=self.max_seconds))


def window_of(present: Mapping[str, Any]) -> Window | None:
    """The window that checked attributes ask for; ``None`` where they ask for none."""
    if DEBOUNCE_SECONDS in present:
        seconds = int(present[DEBOUNCE_SECONDS])
        most = int(present.get(DEBOUNCE_MAX_SECONDS, min(seconds * MAX_FACTOR, MOST_MAX_SECONDS)))
        return Window(Kind.DEBOUNCE, _key(present, DEBOUNCE_KEY), seconds, most)
    if UNIQUE_SECONDS in present:
        return Window(Kind.UNIQUE, _key(present, UNIQUE_KEY), int(present[UNIQUE_SECONDS]))
    return None


def debounce_seconds(extensions: Mapping[str, Any]) -> int:
    """Of a stored event; 0 where it was not debounced, or a release that knew no windows has recorded it."""
    value: Any = extensions.get(DEBOUNCE_SECONDS)
    return int(value) if _is_seconds(value, MOST_DEBOUNCE_SECONDS) else 0


def window_faults(
    present: Mapping[str, Any], called: Mapping[str, str] = MappingProxyType({})
) -> Iterable[tuple[str, str, str]]:
    """``(name, code, detail)`` of everything wrong with the attributes of :data:`WINDOW_ATTRIBUTES`.

    ``called``: what some of them are called in details.
    """
    names = sorted(WINDOW_ATTRIBUTES & present.keys())
    faults = [fault for name in names if (fault := _fault(name, present[name], called.get(name, name)))]
    yield from faults
    for name in names:
        if (needed := _NEEDS.get(name)) and needed not in present:
            yield name, "incomplete", f"{name} says nothing without {needed}: send {needed} too, or leave {name} out"
    if DEBOUNCE_SECONDS in present:
        for other in (UNIQUE_SECONDS, _DELIVER_AT):
            if other in present:
                yield other, "contradiction", f"an event has {DEBOUNCE_SECONDS} or {other}, not both: leave one out"
        if not faults and int(present.get(DEBOUNCE_MAX_SECONDS, MOST_MAX_SECONDS)) < int(present[DEBOUNCE_SECONDS]):
            most, least = (called.get(name, name) for name in (DEBOUNCE_MAX_SECONDS, DEBOUNCE_SECONDS))
            detail = f"{most} is at least {least}, which is {present[DEBOUNCE_SECONDS]}"
            yield DEBOUNCE_MAX_SECONDS, "invalid_value", f"{detail}; not {present[DEBOUNCE_MAX_SECONDS]}"


def _fault(name: str, value: Any, called: str) -> tuple[str, str, str] | None:
    if name in _SECONDS:
        if _is_seconds(value, _SECONDS[name]):
            return None
        detail = f"{called} is a whole number of seconds from 1 to {_SECONDS[name]}, such as 30; not {_shown(value)}"
        return name, "invalid_value", detail
    if not isinstance(value, str):
        return name, "invalid_type", f"{called} is a string; not {_shown(value)}"
    if not is_text(value):
        return name, "invalid_value", f"{called} has control characters or half a surrogate pair"
    size = len(value.encode())
    if not 0 < size <= MAX_NAME_BYTES:
        detail = (
            f"{called} has 1 to {MAX_NAME_BYTES} bytes in UTF-8, and this one has {size}; send a shorter key or a hash"
        )
        return name, "invalid_value" if not size else "too_long", detail
    return None


def _is_seconds(value: Any, most: int) -> bool:
    """A header has the number as text."""
    if isinstance(value, str):
        return len(value) <= _MAX_DIGITS and value.isascii() and value.isdigit() and 1 <= int(value) <= most
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _shown(value: Any) -> str:
    if isinstance(value, str | int | float | bool):
        text = repr(value)
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return f"a {type(value).__name__}"


def _key(present: Mapping[str, Any], name: str) -> str:
    """The subject stands in for a key that was not sent; without one all events of the type have one key."""
    return str(present.get(name) or present.get("subject") or "")
