"""Gauges that need the database. They come from maintenance alone: one process asks, not every replica of everything."""

from holdfast.runtime.telemetry import Metrics
from holdfast.storage import backlog
from holdfast.storage.database import Database
from holdfast.storage.pools import note_connections

__all__ = ["measure"]


def measure(database: Database) -> int:
    """Set the gauges of open events and of the oldest due one; returns how many are open.

    Raises:
        DatabaseUnavailable: the gauges keep their last values.
    """
    with database.transaction() as session:
        pending = backlog.open_events(session)
        oldest_due_seconds = backlog.oldest_due_age_seconds(session)
    for state, count in pending.items():
        Metrics.pending.labels(state).set(count)
    note_connections(database)
    Metrics.oldest_due_seconds.set(oldest_due_seconds)
    return sum(pending.values())
