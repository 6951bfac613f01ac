"""Recovery of crashed workers' events while maintenance is away."""

import contextlib
from collections.abc import Callable

from holdfast.domain.errors import DatabaseUnavailable, StatementTooSlow
from holdfast.messaging.announce import Announcer
from holdfast.storage import lanes, leases, sweeps
from holdfast.storage.database import Database

__all__ = ["INTERVAL_SECONDS", "recover"]

INTERVAL_SECONDS = 2.0

EXPIRED_FOR_SECONDS = 2.0
"""Maintenance looks every second and with this head start finds them first. Without it an event is free within its lease
and five seconds all the same.
"""

LIMIT = 100

_NEXT_TIME = (DatabaseUnavailable, StatementTooSlow)
"""No reason for a log line: the poller says so."""


def recover(database: Database, announcer: Announcer, note_served: Callable[[], None]) -> int:
    """Take up to ``LIMIT`` expired leases away, as maintenance does; returns how many.

    Calls the next events of lanes whose last one ended with its worker, and ``note_served``.
    """
    try:
        if not sweeps.is_any_lost(database, expired_for_seconds=EXPIRED_FOR_SECONDS):
            return 0
        with database.transaction() as session:
            recovered = leases.recover_expired(session, limit=LIMIT, expired_for_seconds=EXPIRED_FOR_SECONDS)
            lanes.promote_forgotten(session, limit=LIMIT)
    except _NEXT_TIME:
        return 0
    announcer.publish_recovered(recovered)
    with contextlib.suppress(*_NEXT_TIME):
        note_served()
    return len(recovered)
