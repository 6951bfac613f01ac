"""Which event types a handler's pattern fits, and which known type a mistyped one was probably meant to be."""

from collections.abc import Iterable

__all__ = ["fits", "nearest", "read_route", "route_of", "route_text"]

ROUTE_MARK = "\x1f"
"""Between a type and the handler that an event of it was made for. No type has a control character in it."""

NEAR_SHARE = 5
"""A type is near another one if at most one edit for so many of its characters lies between them…"""

NEAR_MOST = 8
"""…and never more than this many, so that a comparison costs little however long the texts are."""


def fits(pattern: str, event_type: str) -> bool:
    """Whether a handler's pattern, in which ``*`` stands for any run of characters, fits a type.

    Takes each part at its first place, which is never worse than a later one; a regular expression would try all of them,
    which takes seconds for a type of many dots.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == event_type
    *between, last = rest
    if len(event_type) < len(first) + len(last) or not (event_type.startswith(first) and event_type.endswith(last)):
        return False
    position, end = len(first), len(event_type) - len(last)
    for part in between:
        place = event_type.find(part, position, end)
        if place < 0:
            return False
        position = place + len(part)
    return True


def route_of(event_type: str, handler: str | None) -> str:
    """Which way events go: their type; with the name of the handler that they were made for, if they were made for one."""
    return event_type if handler is None else f"{event_type}{ROUTE_MARK}{handler}"


def read_route(route: str) -> tuple[str, str | None]:
    """The type and the handler of :func:`route_of`."""
    event_type, mark, handler = route.partition(ROUTE_MARK)
    return event_type, handler if mark else None


def route_text(route: str) -> str:
    """For people: ``com.acme.order.placed``, or ``com.acme.order.placed (for mail-order)``."""
    event_type, handler = read_route(route)
    return event_type if handler is None else f"{event_type} (for {handler})"


def nearest(event_type: str, known: Iterable[str]) -> str | None:
    """The known type with the fewest edits between it and this one (Levenshtein 1966), or ``None`` if none is near.

    Of equally near ones the first in the alphabet. Patterns, which have a ``*``, are left out.
    """
    best: tuple[int, str] | None = None
    most = min(NEAR_MOST, max(1, len(event_type) // NEAR_SHARE))
    for each in sorted(set(known)):
        if "*" in each or abs(len(each) - len(event_type)) > most:
            continue
        edits = _edits(event_type.casefold(), each.casefold(), most)
        if edits is not None and (best is None or edits < best[0]):
            best = edits, each
    return best[1] if best else None


def _edits(one: str, other: str, most: int) -> int | None:
    """How many characters have to be put in, left out or replaced; ``None`` for more than ``most``.

    Only the band of the table that such a way can lead through is filled in (Ukkonen 1985).
    """
    beyond = most + 1
    row = [place if place <= most else beyond for place in range(len(other) + 1)]
    for line, character in enumerate(one, 1):
        before, row = row, [beyond] * (len(other) + 1)
        row[0] = min(line, beyond)
        for place in range(max(1, line - most), min(len(other), line + most) + 1):
            replaced = before[place - 1] + (character != other[place - 1])
            row[place] = min(replaced, before[place] + 1, row[place - 1] + 1, beyond)
        if min(row) > most:
            return None
    return row[-1] if row[-1] <= most else None
