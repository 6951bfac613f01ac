"""Take expired leases away from workers that are gone, and end what was cancelled when no worker has it any more."""

import time

from holdfast.maintenance.tracing import trace_batch
from holdfast.messaging.announce import Announcer
from holdfast.storage import cancels, leases
from holdfast.storage.database import Database

__all__ = ["recover"]


def recover(database: Database, announcer: Announcer, *, limit: int) -> int:
    """Recover up to ``limit`` events, and discard as many that were to be cancelled; returns how many.

    They are due again after a short wait and redispatch rings for them then; a third lost worker makes a dead letter.

    Raises:
        DatabaseUnavailable: nothing more was recovered.
    """
    began_ns = time.time_ns()
    recovered = database.call(leases.recover_expired, limit=limit)
    announcer.publish_recovered(recovered)
    cancelled = database.call(cancels.carry_out, limit=limit)
    announcer.publish(cancelled)
    trace_batch(database, "recover", [update.event_id for update in recovered], began_ns=began_ns)
    return max(len(recovered), len(cancelled))
