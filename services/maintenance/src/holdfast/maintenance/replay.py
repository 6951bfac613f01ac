"""Work off replays and discards by filter, each at the rate that was asked for."""

from collections.abc import Callable
from uuid import UUID

from holdfast.domain.errors import DatabaseUnavailable
from holdfast.domain.event import Doorbell
from holdfast.messaging.announce import Announcer
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log, Metrics
from holdfast.storage import replay_batches
from holdfast.storage.database import Database
from holdfast.storage.replay_batches import Batch
from holdfast.storage.replays import Action

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
    does not take, or that die with this process, are left to relay and redispatch. A replay whose turn fails waits, ever
    longer, and the others go on.

    Raises:
        DatabaseUnavailable: what was not committed is done again, whole.
    """

    def work(replay_id: UUID) -> int:
        with database.transaction() as session:
            batch = replay_batches.replay_batch(
                session, replay_id, limit=limit, burst_seconds=burst_seconds, grace_seconds=grace_seconds
            )
        _announce(batch, announcer)
        return batch.items

    with database.transaction() as session:
        due = replay_batches.due_replays(session, limit=MAX_REPLAYS)
    return sum(_isolated(work, replay_id, database) for replay_id in due)


def _isolated(work: Callable[[UUID], int], replay_id: UUID, database: Database) -> int:
    """Items done for one replay. An exception is the replay's own; without a database no replay can go on."""
    try:
        return work(replay_id)
    except DatabaseUnavailable:
        raise
    except Exception as exc:  # noqa: BLE001 (whatever one replay does to its turn, the others have theirs)
        _postpone(replay_id, exc, database)
        return 0


def _postpone(replay_id: UUID, exc: Exception, database: Database) -> None:
    """Let the replay wait. Only its first failure in a row is logged: it may fail for days."""
    try:
        with database.transaction() as session:
            failures = replay_batches.postpone_replay(session, replay_id, error=type(exc).__name__)
    except DatabaseUnavailable:
        raise
    except Exception:
        log.exception(Log.REPLAY_FAILED, replay_id=str(replay_id))
        return
    write = log.error if failures == 1 else log.debug
    write(Log.REPLAY_FAILED, replay_id=str(replay_id), failures=failures, exc_info=exc)


def _announce(batch: Batch, announcer: Announcer) -> None:
    if not batch.items:
        return
    done = len(batch.updates) + batch.asked
    Metrics.replayed.labels(f"{batch.action}ed").inc(done)
    Metrics.replayed.labels("skipped").inc(batch.skipped)
    if batch.action is Action.DISCARD:
        log.info(Log.DISCARDED, count=done, skipped=batch.skipped)
    else:
        log.info(Log.REPLAYED, count=done, skipped=batch.skipped)
        announcer.ring([Doorbell.of(update) for update in batch.updates])
    announcer.publish(batch.updates)
