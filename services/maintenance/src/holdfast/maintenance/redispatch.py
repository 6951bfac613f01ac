"""Ring again for events that are due and seem forgotten."""

from redis.exceptions import RedisError

from holdfast.messaging.broker import DoorbellBroker
from holdfast.messaging.doorbell import ring
from holdfast.runtime.telemetry import Metrics
from holdfast.storage import lifecycle
from holdfast.storage.database import Database

__all__ = ["redispatch"]


def redispatch(database: Database, broker: DoorbellBroker, *, limit: int) -> int:
    """Ring for up to ``limit`` due events; returns how many.

    Each one is rung for ever more rarely, so that a long backlog does not flood Redis. A bell that Redis did not take must
    therefore not count: the events would wait for up to half an hour although Redis is back. So a broker that does not
    answer is noticed before any event is taken, and events whose bells fail all the same are put back.

    Raises:
        DatabaseUnavailable: nothing was rung for, or events could not be put back; those wait for their next turn.
        redis.exceptions.RedisError: the broker is down.
    """
    broker.client.ping()
    with database.transaction() as session:
        doorbells = lifecycle.redispatch_due(session, limit=limit)
    if not doorbells:
        return 0
    try:
        ring(broker, doorbells)
    except RedisError:
        with database.transaction() as session:
            lifecycle.undo_redispatch(session, doorbells)
        raise
    Metrics.redispatched.inc(len(doorbells))
    return len(doorbells)
