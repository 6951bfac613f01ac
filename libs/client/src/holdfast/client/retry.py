"""How long to wait before a retry. Pure: the caller passes the random number and the time."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["ATTEMPTS", "MAX_RETRY_AFTER_SECONDS", "backoff_seconds", "retry_after_seconds"]

ATTEMPTS = 5
"""Attempts of one HTTP request. With the pauses between them they outlast the restart of a service."""

MAX_RETRY_AFTER_SECONDS = 30.0
"""Longest ``Retry-After`` that a call waits for. For a longer one it raises at once, and the caller decides."""

FIRST_SECONDS = 0.2
LONGEST_SECONDS = 10.0


def backoff_seconds(attempt: int, random: float) -> float:
    """Pause after the ``attempt``-th failure in a row: from 0.2 s, doubling up to 10 s, of which ``random`` (0 to 1) picks
    between half and all. So clients that failed in the same instant do not retry in the same instant.
    """
    whole = min(FIRST_SECONDS * 2.0 ** min(attempt - 1, 16), LONGEST_SECONDS)
    return whole * (0.5 + random / 2)


def retry_after_seconds(headers: Mapping[str, str], *, now: datetime | None = None) -> float:
    """Seconds until the time in ``Retry-After`` (RFC 9110, 10.2.3: seconds or a date); 0 if it is missing or malformed."""
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
