"""Recovery of crashed workers' events while maintenance is away; and what is heard of the node on the way."""

import contextlib
from collections.abc import Callable

from holdfast.domain.errors import DatabaseUnavailable, StatementTooSlow, TransactionConflict
from holdfast.messaging.announce import Announcer
from holdfast.runtime.background import Repeater
from holdfast.storage import cancels, lanes, leases, sweeps
from holdfast.storage.database import Database

__all__ = ["INTERVAL_SECONDS", "Recovery"]

INTERVAL_SECONDS = 2.0

EXPIRED_FOR_SECONDS = 2.0
"""Maintenance looks every second and with this head start finds them first. Without it an event is free within its lease
and five seconds all the same.
"""

LIMIT = 100

_NEXT_TIME = (DatabaseUnavailable, StatementTooSlow, TransactionConflict)
"""No reason for a log line: the poller says so."""


class Recovery:
    """Every two seconds: what a processor asks PostgreSQL, in a thread of its own, and what it does about the answer.

    Args:
        note_served: says which types are served here, when events wait for a handler.
        hear: told whether the node is drained, before anything else; ``None``: nobody knows the node.
        declare: stores what the handlers declare, and does nothing once that is done.
    """

    def __init__(
        self,
        database: Database,
        announcer: Announcer,
        *,
        node_id: str,
        note_served: Callable[[], None],
        hear: Callable[[bool | None], None],
        declare: Callable[[], None],
    ) -> None:
        self._database = database
        self._announcer = announcer
        self._node_id = node_id
        self._note_served = note_served
        self._hear = hear
        self._declare = declare
        self._repeater = Repeater("recovery", self.turn, interval_seconds=INTERVAL_SECONDS)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._repeater.is_alive

    def start(self) -> None:
        """Have the first turn at once."""
        self._repeater.start()

    def stop(self) -> None:
        """Let the turn under way end, for a second at most."""
        self._repeater.stop(timeout_seconds=1)

    def turn(self) -> int:
        """Take up to ``LIMIT`` expired leases away, as maintenance does; returns how many.

        Discards what was to be cancelled and that no worker has any more, and calls the next events of lanes whose last one
        ended with its worker.
        """
        try:
            found = sweeps.look_after(self._database, node_id=self._node_id, expired_for_seconds=EXPIRED_FOR_SECONDS)
        except _NEXT_TIME:
            return 0
        with contextlib.suppress(*_NEXT_TIME):
            self._hear(found.is_drained)
        with contextlib.suppress(*_NEXT_TIME):
            self._declare()
        return self._recover() if found.is_any_lost else 0

    def _recover(self) -> int:
        try:
            with self._database.transaction() as session:
                recovered = leases.recover_expired(session, limit=LIMIT, expired_for_seconds=EXPIRED_FOR_SECONDS)
                cancelled = cancels.carry_out(session, limit=LIMIT)
                lanes.promote_forgotten(session, limit=LIMIT)
        except _NEXT_TIME:
            return 0
        self._announcer.publish_recovered(recovered)
        self._announcer.publish(cancelled)
        with contextlib.suppress(*_NEXT_TIME):
            self._note_served()
        return len(recovered)
