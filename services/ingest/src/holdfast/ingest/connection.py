"""Transactions on a database that may have been restarted since its connections were made."""

import time
from collections.abc import Callable
from typing import TypeVar

from holdfast.domain.errors import DatabaseUnavailable, TransactionConflict

__all__ = ["reconnecting"]

Answer = TypeVar("Answer")

AT_ONCE_SECONDS = 1.0
"""A dead connection fails at once. What took longer was an outage or a full pool, which a second try makes worse."""


CONFLICTS = 3
"""Tries that a deadlock or a serialization failure may cost before the last one, whose error is passed on."""


def reconnecting(transaction: Callable[[], Answer]) -> Answer:
    """Do a whole transaction; once more if its connection turned out to be dead, and a few times if another was in its way.

    A restarted server leaves dead connections in the pool. The first failure empties the pool, so a second try tells a
    restart from an outage. It may follow a commit of unknown outcome: the transaction must be idempotent, as recording
    is by the event's identity.

    Raises:
        DatabaseUnavailable: there is more to it than that.
    """
    began = time.monotonic()
    for _ in range(CONFLICTS):
        try:
            return transaction()
        except TransactionConflict:
            continue  # the other transaction has had its way; now it is this one's turn
        except DatabaseUnavailable:
            if time.monotonic() - began > AT_ONCE_SECONDS:
                raise
            break
    return transaction()
