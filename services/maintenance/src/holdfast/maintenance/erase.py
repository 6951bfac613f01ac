"""Go on with erasures of what has a subject, or of everything."""

import time
from collections.abc import Callable
from uuid import UUID

from holdfast.domain.errors import DatabaseUnavailable, LiveWindowUnavailable
from holdfast.messaging.announce import Announcer
from holdfast.messaging.live import Publisher
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log, Metrics
from holdfast.storage import erasures
from holdfast.storage.database import Database
from holdfast.storage.erasures import Erased

__all__ = ["MOST_ERASURES", "TURN_SECONDS", "erase"]

log = logging.get(__name__)

TURN_SECONDS = 0.25
"""Of a turn, of which there is one a second: so much of the time is for erasing, and the rest is the load's."""

MOST_ERASURES = 20
"""That one turn takes on; with more at once each has its turn later."""


def erase(
    database: Database, announcer: Announcer, publisher: Publisher, *, dedupe_seconds: float, limit: int,
    now: Callable[[], float] = time.monotonic,
) -> int:  # fmt: skip
    """Give the erasures that are due their pages, ``limit`` events each, until ``TURN_SECONDS`` are over; returns how many
    had their turn.

    One that another process has is left to it. A process that dies leaves its page undone, whole. An erasure whose turn
    fails waits, ever longer, and the others go on.

    Args:
        dedupe_seconds: how long an identity is known, from when its event was received.

    Raises:
        DatabaseUnavailable: what was not committed is done again.
        LiveWindowUnavailable: nothing is erased while Redis cannot be.
    """
    began = now()

    def page(erasure_id: UUID) -> bool:
        with database.transaction() as session:
            done = erasures.erase_page(session, erasure_id, dedupe_seconds=dedupe_seconds, limit=limit)
            # Before the commit: once the rows are gone nobody knows any more what to take out of the live window.
            publisher.forget(done.tenant, done.events)
        _tell(erasure_id, done, announcer)
        return done.is_full

    due = database.call(erasures.due_erasures, limit=MOST_ERASURES)
    turns, again = len(due), list(due)
    while again and now() - began < TURN_SECONDS:
        again = [erasure_id for erasure_id in again if _isolated(page, erasure_id, database)]
    return turns


def _tell(erasure_id: UUID, done: Erased, announcer: Announcer) -> None:
    announcer.publish(done.updates)
    Metrics.events_erased.inc(done.erased)
    if done.is_done:
        log.info(Log.ERASED, erasure_id=str(erasure_id))


def _isolated(page: Callable[[UUID], bool], erasure_id: UUID, database: Database) -> bool:
    """An exception is the erasure's own; without a database or Redis none can go on."""
    try:
        return page(erasure_id)
    except (DatabaseUnavailable, LiveWindowUnavailable):
        raise
    except Exception as exc:  # noqa: BLE001 (whatever one erasure does to its turn, the others have theirs)
        failures = database.call(erasures.postpone_erasure, erasure_id, error=type(exc).__name__)
        Metrics.erasure_failures.inc()
        write = log.error if failures == 1 else log.debug
        write(Log.ERASURE_FAILED, erasure_id=str(erasure_id), failures=failures, exc_info=exc)
        return False
