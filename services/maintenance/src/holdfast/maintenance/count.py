"""Keep the counters behind charts and ``/v1/stats``."""

from holdfast.runtime.telemetry import Metrics
from holdfast.storage.counting import COUNT_AFTER_SECONDS, count_page
from holdfast.storage.database import Database

__all__ = ["count"]

UPDATES_TOGETHER = 10_000
"""In one transaction: some 0.1 s of PostgreSQL, and as many rows sorted in memory."""

MOST_PAGES = 20
"""Of one turn: a bound, so that a turn ends and the thread can stop."""


def count(database: Database, *, limit: int = UPDATES_TOGETHER) -> int:
    """Add the updates that are not counted yet, ``limit`` in a transaction; returns how many.

    Does nothing when all was counted a few seconds ago, or when another process is at it.

    Raises:
        DatabaseUnavailable: what was not committed is counted next time, and nothing twice.
    """
    total, after_seconds = 0, COUNT_AFTER_SECONDS
    for _ in range(MOST_PAGES):
        updates = database.call(count_page, limit=limit, after_seconds=after_seconds)
        Metrics.counted.inc(updates)
        total, after_seconds = total + updates, 0
        if updates < limit:
            break
    return total
