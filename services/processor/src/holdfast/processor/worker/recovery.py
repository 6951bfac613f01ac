"""Recovery of crashed workers' events while maintenance is away."""

from collections import Counter
from collections.abc import Callable

from holdfast.domain.errors import DatabaseUnavailable, StatementTooSlow
from holdfast.messaging.announce import Announcer
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log, Metrics
from holdfast.storage import lanes, leases
from holdfast.storage.database import Database

__all__ = ["INTERVAL_SECONDS", "recover"]

log = logging.get(__name__)

INTERVAL_SECONDS = 2.0

EXPIRED_FOR_SECONDS = 2.0
"""Maintenance looks every second and with this head start finds them first. Without it an event is free within its lease
and five seconds all the same.
"""

LIMIT = 100


def recover(database: Database, announcer: Announcer, note_served: Callable[[], None]) -> int:
    """Take up to ``LIMIT`` expired leases away, as maintenance does; returns how many.

    Calls the next events of lanes whose last one ended with its worker, and ``note_served``.
    """
    try:
        with database.transaction() as session:
            recovered = leases.recover_expired(session, limit=LIMIT, expired_for_seconds=EXPIRED_FOR_SECONDS)
            lanes.promote_forgotten(session, limit=LIMIT)
        note_served()
    except (DatabaseUnavailable, StatementTooSlow):
        return 0  # the poller says so
    if not recovered:
        return 0
    by_state = Counter(update.state.value for update in recovered)
    for state, count in by_state.items():
        Metrics.recovered.labels(state).inc(count)
    log.warning(Log.RECOVERED, **by_state)
    announcer.publish(recovered)
    return len(recovered)
