"""Lengths of time, as handlers write them."""

import re
from datetime import timedelta

__all__ = ["seconds_of"]

_UNITS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
    **dict.fromkeys(("week", "weeks"), 7 * 86400.0),
}

_PART = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([a-z]+)", re.ASCII)


def seconds_of(duration: object) -> float:
    """Seconds of a number of seconds, a ``timedelta``, or a text such as ``"1 day"``, ``"90 min"``, ``"1 h 30 min"``.

    Raises:
        ValueError: it is none of these, or negative.
    """
    seconds = _seconds(duration)
    if seconds is None or not seconds >= 0:
        raise ValueError(
            f"a length of time is a number of seconds from 0 on, a timedelta, or a text such as '1 day' or '1 h 30 min';"
            f" not {duration!r:.100}"
        )
    return seconds


def _seconds(duration: object) -> float | None:
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    if isinstance(duration, str):
        return _read(duration)
    is_number = isinstance(duration, int | float) and not isinstance(duration, bool)
    return float(duration) if is_number else None  # type: ignore[arg-type]


def _read(text: str) -> float | None:
    total, end = 0.0, 0
    if len(text) > 100:  # far above what anybody writes
        return None
    while match := _PART.match(text, end):
        if (unit := _UNITS.get(match[2])) is None:
            return None
        total, end = total + float(match[1]) * unit, match.end()
    return total if end and not text[end:].strip() else None
