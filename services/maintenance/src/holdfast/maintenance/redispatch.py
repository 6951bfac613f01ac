"""Ring again for events that are due and seem forgotten."""

import time

from holdfast.domain.errors import BrokerUnavailable
from holdfast.maintenance.tracing import trace_batch
from holdfast.messaging.bell import Bell
from holdfast.runtime.telemetry import Metrics
from holdfast.storage import dispatch, lanes
from holdfast.storage.database import Database

__all__ = ["redispatch"]


def redispatch(database: Database, bell: Bell, *, limit: int) -> int:
    """Ring for up to ``limit`` due events; returns how many.

    Each one is rung for ever more rarely, so that a long backlog does not flood Redis. A bell that the broker did not
    take must therefore not count: the events would wait for up to half an hour although the broker is back. So a broker that
    does not answer is noticed before any event is taken, and events whose bells fail all the same are put back.

    Raises:
        DatabaseUnavailable: nothing was rung for, or events could not be put back; those wait for their next turn.
        BrokerUnavailable: the broker is down.
    """
    bell.ping()
    began_ns = time.time_ns()
    with database.transaction() as session:
        lanes.promote_forgotten(session, limit=limit)
        doorbells = dispatch.redispatch_due(session, limit=limit)
    if not doorbells:
        return 0
    try:
        bell.ring(doorbells)
    except BrokerUnavailable:
        with database.transaction() as session:
            dispatch.undo_redispatch(session, doorbells)
        raise
    Metrics.redispatched.inc(len(doorbells))
    trace_batch(database, "redispatch", [each.event_id for each in doorbells], began_ns=began_ns)
    return len(doorbells)
