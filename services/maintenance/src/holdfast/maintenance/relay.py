"""Publish what is left in the outbox: updates whose process died, or whose Redis was away."""

from holdfast.messaging.live import Publisher
from holdfast.runtime.telemetry import Metrics
from holdfast.storage import updates
from holdfast.storage.database import Database

__all__ = ["relay"]


def relay(database: Database, publisher: Publisher, *, older_than_seconds: float, limit: int) -> int:
    """Publish up to ``limit`` updates, oldest first; returns how many. Those published before stay invisible to clients.

    Raises:
        DatabaseUnavailable: the outbox cannot be read, or not be marked (then they are published again, invisibly).
        LiveWindowUnavailable: Redis is down; they stay in the outbox.
    """
    left = database.call(updates.unpublished, older_than_seconds=older_than_seconds, limit=limit)
    if not left:
        return 0
    publisher.publish(left)
    database.call(updates.mark_published, [(update.event_id, update.version) for update in left])
    Metrics.relayed.inc(len(left))
    return len(left)
