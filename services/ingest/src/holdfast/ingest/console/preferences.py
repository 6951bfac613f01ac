"""Pure: what a browser keeps for the person at it, in cookies. What is not understood there counts as absent."""

import base64
import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = [
    "COLUMNS",
    "COLUMNS_COOKIE",
    "MAX_NAME_CHARACTERS",
    "MAX_SEARCHES",
    "SEARCHES_COOKIE",
    "STANDARD_COLUMNS",
    "Search",
    "columns_in",
    "columns_text",
    "searches_in",
    "searches_text",
    "with_search",
]

COLUMNS_COOKIE = "holdfast_console_columns"
SEARCHES_COOKIE = "holdfast_console_searches"

COLUMNS = {
    "subject": "Subject",
    "audience": "Audience",
    "source": "Source",
    "id": "CloudEvents id",
    "error": "Error",
    "handler": "Handler",
    "attempts": "Attempts",
    "request_id": "Request id",
    "trace_id": "Trace id",
    "finished": "Finished",
    "received": "Received",
}
"""Columns of the list of events beside state and type, in their order."""

STANDARD_COLUMNS = ("subject", "attempts", "received")

MAX_SEARCHES = 12
MAX_NAME_CHARACTERS = 40

MAX_COOKIE_CHARACTERS = 3500
"""Browsers keep 4096 bytes of a cookie with its name and attributes."""


class Search(NamedTuple):
    """Filters of the list of events that were given a name. ``query`` is a query string without its question mark."""

    name: str
    query: str


def columns_in(cookie: str | None) -> tuple[str, ...]:
    """The columns to show."""
    if cookie is None:
        return STANDARD_COLUMNS
    wanted = cookie.split(".")
    return tuple(name for name in COLUMNS if name in wanted)


def columns_text(chosen: Iterable[str]) -> str:
    """As a cookie's value; names of no column are left out."""
    wanted = set(chosen)
    return ".".join(name for name in COLUMNS if name in wanted)


def searches_in(cookie: str | None) -> list[Search]:
    """The searches that were kept."""
    if not cookie or len(cookie) > MAX_COOKIE_CHARACTERS:
        return []
    try:
        listed = json.loads(base64.urlsafe_b64decode(cookie))
    except (ValueError, RecursionError):
        return []
    return [Search(*each) for each in listed if _is_search(each)][:MAX_SEARCHES] if isinstance(listed, list) else []


def searches_text(searches: Sequence[Search]) -> str | None:
    """As a cookie's value; ``None`` where a browser would not keep so many, or such long ones."""
    text = base64.urlsafe_b64encode(json.dumps(searches, separators=(",", ":")).encode()).decode()
    return text if len(searches) <= MAX_SEARCHES and len(text) <= MAX_COOKIE_CHARACTERS else None


def with_search(searches: Sequence[Search], new: Search) -> list[Search]:
    """These and one more, which takes the place of one with the same name."""
    return sorted([*(each for each in searches if each.name != new.name), new])


def _is_search(value: object) -> bool:
    is_pair = isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) for each in value)
    return is_pair and 0 < len(value[0]) <= MAX_NAME_CHARACTERS  # type: ignore[index]
