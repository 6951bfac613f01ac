"""Take expired leases away from workers that are gone."""

import time

from holdfast.maintenance.tracing import trace_batch
from holdfast.messaging.announce import Announcer
from holdfast.storage import leases
from holdfast.storage.database import Database

__all__ = ["recover"]


def recover(database: Database, announcer: Announcer, *, limit: int) -> int:
    """Recover up to ``limit`` events; returns how many.

    They are due again after a short wait and redispatch rings for them then; a third lost worker makes a dead letter.

    Raises:
        DatabaseUnavailable: nothing was recovered.
    """
    began_ns = time.time_ns()
    recovered = database.call(leases.recover_expired, limit=limit)
    announcer.publish_recovered(recovered)
    trace_batch(database, "recover", [update.event_id for update in recovered], began_ns=began_ns)
    return len(recovered)
