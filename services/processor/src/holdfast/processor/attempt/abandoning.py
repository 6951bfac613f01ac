"""Handlers that nothing ends, when their process has to go."""

import time
from collections.abc import Callable, Sequence

from holdfast.domain.transitions import Transition, release
from holdfast.domain.update import Update
from holdfast.processor.attempt.heartbeat import Running
from holdfast.processor.attempt.reporting import report_abandoned
from holdfast.processor.handlers.outcomes import HandlerTimeout, failure
from holdfast.storage import lifecycle
from holdfast.storage.database import Database

__all__ = ["abandon"]


def abandon(left: Sequence[Running], effects: Database, *, owner: str, draw: Callable[[], float]) -> list[Update]:
    """Give their events back; returns what is to be published. One whose time is up has failed.

    The transaction of a handler that has any is cut off and so rolled back. ``draw`` is as for ``outcomes.failure``.

    Raises:
        DatabaseUnavailable, StatementTooSlow: recovery gives them back, when their leases expire.
    """
    for running in left:
        if running.backend is not None:
            running.backend.cut()
    outcomes = [_outcome_of(running, draw) for running in left]
    updates = effects.call(lifecycle.apply, outcomes, worker=owner)
    moved = {update.event_id for update in updates}
    for running, outcome in zip(left, outcomes, strict=True):
        if outcome.event_id in moved:
            report_abandoned(running, outcome)
    return updates


def _outcome_of(running: Running, draw: Callable[[], float]) -> Transition:
    lease, handler, seconds = running.lease, running.handler, time.monotonic() - running.started
    if seconds < handler.timeout_seconds:
        return release(lease.event.id, lease.token)
    error = HandlerTimeout(f"the handler hung beyond its timeout of {handler.timeout_seconds:g} s; nothing ended it")
    return failure(error, lease, handler, draw=draw(), duration_ms=int(seconds * 1000))
