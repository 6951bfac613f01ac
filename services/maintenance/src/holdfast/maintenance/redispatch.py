"""Ring again for events that are due and seem forgotten."""

from holdfast.messaging.broker import DoorbellBroker
from holdfast.messaging.doorbell import ring
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log, Metrics
from holdfast.storage import lifecycle
from holdfast.storage.database import Database

__all__ = ["redispatch"]

log = logging.get(__name__)


def redispatch(database: Database, broker: DoorbellBroker, *, limit: int) -> int:
    """Ring for up to ``limit`` due events; returns how many.

    Each one is rung for ever more rarely, so that a long backlog does not flood Redis. That is why a broker which does not
    answer is noticed first: events taken now would wait for half a minute after its return.

    Raises:
        DatabaseUnavailable: nothing was rung for.
        redis.exceptions.RedisError: the broker is down; events already taken wait for their next turn.
    """
    broker.client.ping()
    with database.transaction() as session:
        doorbells = lifecycle.redispatch_due(session, limit=limit)
    if doorbells:
        ring(broker, doorbells)
        Metrics.redispatched.inc(len(doorbells))
        log.info(Log.REDISPATCHED, count=len(doorbells))
    return len(doorbells)
