"""Work off replays by filter, each at the rate that was asked for."""

from holdfast.domain.event import Doorbell
from holdfast.messaging.announce import Announcer
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log, Metrics
from holdfast.storage import replay_batches
from holdfast.storage.database import Database
from holdfast.storage.replay_batches import Batch

__all__ = ["MAX_REPLAYS", "replay"]

log = logging.get(__name__)

MAX_REPLAYS = 20
"""Replays that one turn goes through; with more at once each has its turn later, and is slower than it was asked to be."""


def replay(
    database: Database,
    announcer: Announcer,
    *,
    limit: int,
    burst_seconds: float,
    grace_seconds: float,
) -> int:
    """Replay up to ``limit`` events of each replay that is due; returns how many items are done.

    A replay whose row another process has locked is left to it. Updates and doorbells follow the commit; those that Redis
    does not take, or that die with this process, are left to relay and redispatch.

    Raises:
        DatabaseUnavailable: what was not committed is done again, whole.
    """
    with database.transaction() as session:
        due = replay_batches.due_replays(session, limit=MAX_REPLAYS)
    done = 0
    for replay_id in due:
        with database.transaction() as session:
            batch = replay_batches.replay_batch(
                session, replay_id, limit=limit, burst_seconds=burst_seconds, grace_seconds=grace_seconds
            )
        done += batch.items
        _announce(batch, announcer)
    return done


def _announce(batch: Batch, announcer: Announcer) -> None:
    if not batch.items:
        return
    Metrics.replayed.labels("replayed").inc(len(batch.updates))
    Metrics.replayed.labels("skipped").inc(batch.skipped)
    log.info(Log.REPLAYED, count=len(batch.updates), skipped=batch.skipped)
    announcer.ring([Doorbell(update.event_id, update.version) for update in batch.updates])
    announcer.publish(batch.updates)
