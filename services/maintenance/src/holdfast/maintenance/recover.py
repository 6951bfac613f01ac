"""Take expired leases away from workers that are gone."""

from collections import Counter

from holdfast.messaging.announce import Announcer
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log, Metrics
from holdfast.storage import leases
from holdfast.storage.database import Database

__all__ = ["recover"]

log = logging.get(__name__)


def recover(database: Database, announcer: Announcer, *, limit: int) -> int:
    """Recover up to ``limit`` events; returns how many.

    They are due again after a short wait and redispatch rings for them then; a third lost worker makes a dead letter.

    Raises:
        DatabaseUnavailable: nothing was recovered.
    """
    with database.transaction() as session:
        recovered = leases.recover_expired(session, limit=limit)
    if not recovered:
        return 0
    by_state = Counter(update.state.value for update in recovered)
    for state, count in by_state.items():
        Metrics.recovered.labels(state).inc(count)
    log.warning(Log.RECOVERED, **by_state)
    announcer.publish(recovered)
    return len(recovered)
