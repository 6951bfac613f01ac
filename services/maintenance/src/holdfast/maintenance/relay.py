"""Publish what is left in the outbox: updates whose process died, or whose Redis was away."""

import time
from collections.abc import Sequence

from holdfast.maintenance.tracing import trace_batch
from holdfast.messaging.live import Publisher
from holdfast.runtime.telemetry import Metrics
from holdfast.storage import outbox
from holdfast.storage.database import Database
from holdfast.storage.updates import UpdateKey, find_updates

__all__ = ["relay", "snapshot_seconds"]

KEYS_TOGETHER = 2000
"""Updates whose markers Redis is asked for in one call: about a millisecond of its time."""

MOST_PAGES = 20
"""Of one turn: a bound, so that a turn ends and the thread can stop."""


def relay(database: Database, publisher: Publisher, *, within_seconds: float, limit: int) -> int:
    """Publish the updates of the outbox's window that Redis has not got; returns how many.

    An update is looked at when it is between half of ``within_seconds`` and all of it old; its own process has published it
    by then. ``limit`` updates are read and published at a time. Publishing one twice is invisible to clients.

    Raises:
        DatabaseUnavailable: the outbox cannot be read, or the cursor not be moved (then they are looked at again).
        LiveWindowUnavailable: Redis is down; they stay in the outbox.
    """
    published = 0
    for _ in range(MOST_PAGES):
        page = database.call(outbox.next_page, after_seconds=snapshot_seconds(within_seconds), limit=KEYS_TOGETHER)
        if page is None:
            break
        published += _publish(database, publisher, publisher.missing(page.keys), limit)
        database.call(outbox.confirm, page)
    return published


def snapshot_seconds(within_seconds: float) -> float:
    """How long a snapshot of the outbox rests: each update is looked at one or two such times after it was written."""
    return within_seconds / 2


def _publish(database: Database, publisher: Publisher, keys: Sequence[UpdateKey], limit: int) -> int:
    published = 0
    for first in range(0, len(keys), limit):
        began_ns = time.time_ns()
        updates = database.call(find_updates, keys[first : first + limit])
        publisher.publish(updates)
        Metrics.relayed.inc(len(updates))
        trace_batch(database, "relay", [update.event_id for update in updates], began_ns=began_ns)
        published += len(updates)
    return published
