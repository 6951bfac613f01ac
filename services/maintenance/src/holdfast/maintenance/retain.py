"""Drop events whose time is over, a page in a transaction."""

import time
from collections.abc import Callable

from holdfast.runtime.telemetry import Metrics
from holdfast.storage import retention
from holdfast.storage.database import Database
from holdfast.storage.identities import forget_identities
from holdfast.storage.retention import Walk, Walked

__all__ = ["MOST_WALKS", "TURN_SECONDS", "forget_expired_identities", "plan_retention", "retain"]

TURN_SECONDS = 0.25
"""Of a turn, of which there is one a second: so much of the time is for dropping, and the rest is the load's."""

MOST_WALKS = 20
"""That one turn takes on; with more at once each has its turn later."""


def retain(
    database: Database, *, default_days: int, dedupe_seconds: float, limit: int,
    now: Callable[[], float] = time.monotonic,
) -> int:  # fmt: skip
    """Give the walks that are due their pages, ``limit`` events each, until ``TURN_SECONDS`` are over; returns how many
    events went.

    A walk that another process has is left to it. A process that dies leaves its page undone, whole.

    Args:
        default_days: after which ended events go where no rule says otherwise; 0: never.
        dedupe_seconds: how long an identity is known, from when its event was received.

    Raises:
        DatabaseUnavailable, StatementTooSlow, TransactionConflict: what was not committed is done by the next turn.
    """
    began, dropped = now(), 0

    def page(walk: Walk) -> Walked:
        return database.call(
            retention.walk_page, walk, default_days=default_days, dedupe_seconds=dedupe_seconds, limit=limit
        )

    walks = database.call(retention.due_walks, limit=MOST_WALKS)
    while walks and now() - began < TURN_SECONDS:
        done = [(walk, page(walk)) for walk in walks]
        dropped += sum(each.dropped for _, each in done)
        walks = [walk for walk, each in done if each.is_full]
    Metrics.events_dropped.inc(dropped)
    return dropped


def plan_retention(database: Database, *, default_days: int) -> int:
    """See that the default is carried out for every tenant; returns 0.

    Raises:
        DatabaseUnavailable, StatementTooSlow, TransactionConflict: the next turn does.
    """
    database.call(retention.plan_walks, default_days=default_days)
    return 0


def forget_expired_identities(database: Database, *, limit: int) -> int:
    """Forget up to ``limit`` identities of events that are gone for long enough; returns how many.

    Raises:
        DatabaseUnavailable, StatementTooSlow, TransactionConflict: the next turn forgets them.
    """
    return database.call(forget_identities, limit=limit)
