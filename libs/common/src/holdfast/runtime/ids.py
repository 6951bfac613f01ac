"""Identifiers and timestamps that a process makes itself."""

import os
import time
from datetime import UTC, datetime
from uuid import UUID

__all__ = ["first_uuid7", "utc_now", "uuid7"]


def uuid7() -> UUID:
    """A UUIDv7 (RFC 9562): milliseconds since 1970 in front, so that new rows land side by side in the index.

    Python has one in its standard library from 3.14 on.
    """
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    return UUID(int=value & ~(0x3 << 62) | 0x2 << 62)


def first_uuid7(moment: datetime) -> UUID:
    """The smallest UUID of a millisecond: those that :func:`uuid7` made before it are smaller, the others are not."""
    return UUID(int=(max(0, int(moment.timestamp() * 1000)) & (1 << 48) - 1) << 80)


def utc_now() -> datetime:
    """This machine's clock. For telling only: what is compared is PostgreSQL's."""
    return datetime.now(UTC)
