"""What this process says of itself, and forgetting the nodes that say nothing any more."""

import contextlib
import os
import secrets

from holdfast.domain.errors import DatabaseUnavailable, StatementTooSlow, TransactionConflict
from holdfast.maintenance import VERSION
from holdfast.storage import nodes
from holdfast.storage.database import Database
from holdfast.storage.nodes import Beat, Identity

__all__ = ["Presence", "forget_gone_nodes"]


class Presence:
    """One process, written down anew whenever its row is not there."""

    def __init__(self, database: Database, *, host: str) -> None:
        self._database = database
        self._who = Identity(
            secrets.token_hex(6), "maintenance", host, os.getpid(), VERSION, "worker", os.getpid()
        )  # fmt: skip

    def beat(self) -> None:
        """Say that the process runs.

        Raises:
            DatabaseUnavailable, StatementTooSlow, TransactionConflict: the next turn says it.
        """
        if not nodes.beat(self._database, self._who, Beat(), polled_seconds=None):
            self._database.call(nodes.enter, self._who, is_drained=False)

    def end(self) -> None:
        """Say goodbye; where PostgreSQL does not hear it the node is forgotten all the same, later."""
        with contextlib.suppress(DatabaseUnavailable, StatementTooSlow, TransactionConflict):
            self._database.call(nodes.leave, self._who)


def forget_gone_nodes(database: Database, *, limit: int) -> int:
    """Forget up to ``limit`` nodes that were killed or cut off; returns how many.

    Raises:
        DatabaseUnavailable, StatementTooSlow, TransactionConflict: the next turn forgets them.
    """
    return database.call(nodes.forget_gone, limit=limit)
