"""How long to wait before trying again. Pure: the caller brings the random number and the clock."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["ATTEMPTS", "MAX_RETRY_AFTER_SECONDS", "backoff_seconds", "retry_after_seconds"]

ATTEMPTS = 5
"""Of one HTTP request. With the pauses between them they outlast the restart of a service."""

MAX_RETRY_AFTER_SECONDS = 30.0
"""Longest ``Retry-After`` that is waited for within a call; asked for more, the caller is told at once and decides."""

FIRST_SECONDS = 0.2
LONGEST_SECONDS = 10.0


def backoff_seconds(attempt: int, random: float) -> float:
    """Pause after the ``attempt``-th failure in a row: doubling, and between half and all of it, so that clients which
    failed in the same instant do not come back in the same instant. ``random`` is from 0 to 1.
    """
    whole = min(FIRST_SECONDS * 2.0 ** min(attempt - 1, 16), LONGEST_SECONDS)
    return whole * (0.5 + random / 2)


def retry_after_seconds(headers: Mapping[str, str], *, now: datetime | None = None) -> float:
    """What a ``Retry-After`` header asks for (RFC 9110, 10.2.3: seconds or a date); 0 without one that can be read."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())
