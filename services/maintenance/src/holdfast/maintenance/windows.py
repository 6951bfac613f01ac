"""Forget windows of time that have ended: of debounced and unique events, and of rates."""

from holdfast.storage.database import Database
from holdfast.storage.limits import forget_starts
from holdfast.storage.windows import delete_ended

__all__ = ["forget_ended"]


def forget_ended(database: Database, *, limit: int) -> int:
    """Forget up to ``limit`` windows of each kind that have ended; returns how many. Those that somebody uses are left.

    Raises:
        DatabaseUnavailable, StatementTooSlow, TransactionConflict: the next turn forgets them.
    """
    return database.call(delete_ended, limit=limit) + database.call(forget_starts, limit=limit)
