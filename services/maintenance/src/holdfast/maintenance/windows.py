"""Forget debounce and unique windows that have ended."""

from holdfast.storage.database import Database
from holdfast.storage.windows import delete_ended

__all__ = ["forget_ended"]


def forget_ended(database: Database, *, limit: int) -> int:
    """Forget up to ``limit`` windows that have ended; returns how many. Keys that somebody uses are left for the next turn.

    Raises:
        DatabaseUnavailable, StatementTooSlow, TransactionConflict: the next turn forgets them.
    """
    return database.call(delete_ended, limit=limit)
