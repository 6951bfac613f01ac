"""Which CloudEvents attributes an event may have, from a producer, a handler or an application. Pure."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from holdfast.domain.errors import InvalidTopic
from holdfast.domain.moment import RANGE, read_moment
from holdfast.domain.names import MAX_NAME_BYTES, is_text
from holdfast.domain.topics import check_topic
from holdfast.domain.trace import is_traceparent
from holdfast.domain.window import WINDOW_ATTRIBUTES, window_faults

__all__ = [
    "DELIVER_AT", "HANDLER", "KNOWN", "MAX_ATTRIBUTE_BYTES", "MAX_EXTENSIONS", "PRIORITY", "attribute_faults",
    "extensions_of", "priority_of",
]  # fmt: skip

MAX_ATTRIBUTE_BYTES = 1024
"""One attribute's value in UTF-8. Tenant, source and id share an index entry, which holds at most 2704 bytes."""

MAX_EXTENSIONS = 50

KNOWN = frozenset(
    {
        "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "audience",
        "traceparent",
    }
)  # fmt: skip
"""Attributes with a place of their own. All others are extensions, which are kept as they are."""

DELIVER_AT = "deliverat"
"""The extension that says when an event is due."""

PRIORITY = "priority"
"""The extension that says which events go first: 0 to 9, 9 first. In HTTP headers it is a text."""

HANDLER = "holdfasthandler"
"""The extension that names the handler which an event was made for. Holdfast sets it; nobody can send it."""

_REQUIRED = ("specversion", "id", "source", "type")
_EXTENSION = re.compile(r"(?!data\Z)[a-z0-9]{1,64}", re.ASCII)


def extensions_of(present: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that are extensions."""
    return {name: value for name, value in present.items() if name not in KNOWN}


def attribute_faults(present: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    """``(name, code, detail)`` of everything wrong with the attributes; an absent one is not in ``present``."""
    if len(present) > MAX_EXTENSIONS:
        extensions = [name for name in present if name not in KNOWN]
        if len(extensions) > MAX_EXTENSIONS:
            # Alone, or the answer to a body full of names would be as long as that.
            yield extensions[MAX_EXTENSIONS], "too_many_attributes", f"at most {MAX_EXTENSIONS} extension attributes"
            return
    for name in _REQUIRED:
        if present.get(name) in (None, ""):
            yield name, "missing", f"the attribute {name} is required and not empty"
    for name, value in present.items():
        if name in WINDOW_ATTRIBUTES:
            continue
        if name == PRIORITY:
            fault = _priority_fault(value)
        elif name in KNOWN or name in _MEANINGS:
            fault = _known_fault(name, value)
        else:
            fault = _extension_fault(name, value)
        if fault:
            yield name, *fault
    if not WINDOW_ATTRIBUTES.isdisjoint(present):
        yield from window_faults(present)


def priority_of(present: Mapping[str, Any]) -> int | None:
    """The priority that attributes without a fault ask for."""
    value = present.get(PRIORITY)
    return None if value is None else int(value)


def _priority_fault(value: Any) -> tuple[str, str] | None:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if (is_number and 0 <= value <= 9) or (isinstance(value, str) and re.fullmatch("[0-9]", value, re.ASCII)):
        return None
    return "invalid_value", f"{PRIORITY} is a whole number from 0 to 9, of which 9 goes first"


def _extension_fault(name: str, value: Any) -> tuple[str, str] | None:
    if _EXTENSION.fullmatch(name) is None:
        return "invalid_name", "an extension attribute's name is 1 to 64 lower-case letters and digits, and not 'data'"
    if isinstance(value, int):  # booleans are integers here
        return None if -(2**31) <= value < 2**31 else ("invalid_value", "an integer attribute has 32 bits")
    if not isinstance(value, str):
        return "invalid_type", f"the extension attribute {name} must be a string, a boolean or an integer"
    return _text_fault(name, value)


def _known_fault(name: str, value: Any) -> tuple[str, str] | None:
    if not isinstance(value, str):
        return "invalid_type", f"the attribute {name} must be a string"
    if name in _MEANINGS:
        return _text_fault(name, value) or _MEANINGS[name](value)
    return _text_fault(name, value)


def _text_fault(name: str, value: str) -> tuple[str, str] | None:
    if not is_text(value):
        return "invalid_value", f"the attribute {name} has control characters or half a surrogate pair"
    if 4 * len(value) > MAX_ATTRIBUTE_BYTES and len(value.encode()) > MAX_ATTRIBUTE_BYTES:
        return "too_long", f"the attribute {name} has at most {MAX_ATTRIBUTE_BYTES} bytes in UTF-8"
    return None


def _specversion_fault(value: str) -> tuple[str, str] | None:
    return None if value in ("1.0", "") else ("unsupported_version", "specversion must be 1.0")


def _time_fault(value: str) -> tuple[str, str] | None:
    return ("invalid_value", f"time is {RANGE}") if read_moment(value) is None else None


def _deliver_at_fault(value: str) -> tuple[str, str] | None:
    return ("invalid_value", f"{DELIVER_AT} is {RANGE}") if read_moment(value) is None else None


def _handler_fault(_: str) -> tuple[str, str] | None:
    return "invalid_name", f"{HANDLER} is set by Holdfast, on events that it makes for one handler; leave it out"


def _traceparent_fault(value: str) -> tuple[str, str] | None:
    return None if is_traceparent(value) else ("invalid_value", "traceparent is a W3C trace context header")


@lru_cache(maxsize=1024)
def _audience_fault(value: str) -> tuple[str, str] | None:
    if len(value.encode()) > MAX_NAME_BYTES:
        return "too_long", f"the attribute audience has at most {MAX_NAME_BYTES} bytes in UTF-8"
    try:
        check_topic(f"audience:{value}")
    except InvalidTopic as exc:
        return "invalid_value", f"audience becomes the topic audience:<value>: {exc}"
    return None


_MEANINGS: dict[str, Callable[[str], tuple[str, str] | None]] = {
    "specversion": _specversion_fault,
    "time": _time_fault,
    "traceparent": _traceparent_fault,
    "audience": _audience_fault,
    DELIVER_AT: _deliver_at_fault,
    HANDLER: _handler_fault,
}
"""What is wrong with an attribute whose text is one."""
