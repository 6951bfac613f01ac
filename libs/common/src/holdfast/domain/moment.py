"""Timestamps (RFC 3339) of events and filters, read and written. Pure.

Python and PostgreSQL each take times that the other refuses: PostgreSQL has no offset of 16 hours or more, Python no year
before 1 or after 9999. In UTC and within Python's years a time is fine for both.
"""

import re
from datetime import UTC, datetime, timedelta

__all__ = ["RANGE", "moment_text", "read_moment"]

RANGE = (
    "an RFC 3339 timestamp with an offset, from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999Z,"
    " such as 2026-11-24T09:30:00Z"
)
"""What :func:`read_moment` accepts, for error texts."""

_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d):(\d\d)((?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d))", re.ASCII
)  # fmt: skip
_LEAP_SECOND = "60"


def read_moment(text: str) -> datetime | None:
    """An RFC 3339 timestamp in UTC, or ``None`` for any other text and for times outside :data:`RANGE`.

    Digits beyond microseconds are cut off. A leap second (``23:59:60`` in UTC) is read as the second after it, as
    PostgreSQL does.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    minute, second, rest = match.groups()
    try:
        if second == _LEAP_SECOND:
            return _after_leap_second(_in_utc(f"{minute}:59{rest}"))
        return _in_utc(text)
    except (ValueError, OverflowError):
        return None


def moment_text(moment: datetime) -> str:
    """A moment as an RFC 3339 timestamp in UTC, as attributes have it.

    Raises:
        ValueError: it has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError(
            f"a moment is a datetime with a time zone, such as datetime.now(UTC) + timedelta(hours=1); not {moment!r}"
        )
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _in_utc(text: str) -> datetime:
    return datetime.fromisoformat(text.upper()).astimezone(UTC)


def _after_leap_second(second_before: datetime) -> datetime | None:
    """The same fraction of the next second; ``None`` unless a day of UTC ends there, as nowhere else is a leap second."""
    moment = second_before + timedelta(seconds=1)
    return moment if moment.time().replace(microsecond=0).isoformat() == "00:00:00" else None
