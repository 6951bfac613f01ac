"""Times as people give them: ``15m`` ago, or a moment."""

import re
from datetime import UTC, datetime, timedelta

import typer

__all__ = ["moment_option", "read_moment"]

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
"""Seconds."""

SHAPE = "write 90s, 15m, 1h or 7d for so long ago, or a time with its offset such as 2026-11-24T09:30:00Z"

LONGEST = timedelta(days=36_500)

_DURATION = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)
"""RFC 3339, section 5.6."""


def read_moment(text: str, now: datetime) -> str:
    """RFC 3339 for the API: a duration is so long before ``now``, a moment stays as it was given.

    Raises:
        ValueError: it is neither, naming what was received.
    """
    if match := _DURATION.fullmatch(text):
        ago = int(match[1]) * UNITS[match[2]]
        if ago > LONGEST.total_seconds():
            raise ValueError(f"{text!r} is longer ago than {LONGEST.days}d; {SHAPE}")
        return (now - timedelta(seconds=ago)).astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if _MOMENT.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no time; {SHAPE}")
    return text


def moment_option(text: str | None) -> str | None:
    """The callback of an option that takes a time. Durations are reckoned by this machine's clock.

    Raises:
        typer.BadParameter: it is none.
    """
    if not text:
        return None
    try:
        return read_moment(text, datetime.now(UTC))
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
