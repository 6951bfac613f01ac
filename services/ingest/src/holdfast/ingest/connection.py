"""Transactions on a database that may have been restarted since its connections were made."""

import time
from collections.abc import Callable
from typing import TypeVar

from holdfast.domain.errors import DatabaseUnavailable

__all__ = ["reconnecting"]

Answer = TypeVar("Answer")

AT_ONCE_SECONDS = 1.0
"""A dead connection fails at once. What took longer was an outage or a full pool, which a second try makes worse."""


def reconnecting(transaction: Callable[[], Answer]) -> Answer:
    """Do a whole transaction, and once more if its connection turned out to be dead.

    A restarted server leaves dead connections in the pool. The first failure empties the pool, so a second try tells a
    restart from an outage. It may follow a commit of unknown outcome: the transaction must be idempotent, as recording
    is by the event's identity.

    Raises:
        DatabaseUnavailable: there is more to it than that.
    """
    began = time.monotonic()
    try:
        return transaction()
    except DatabaseUnavailable:
        if time.monotonic() - began > AT_ONCE_SECONDS:
            raise
    return transaction()
