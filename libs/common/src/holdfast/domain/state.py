"""The six states of an event. Each says who moves the event on."""

from enum import StrEnum

__all__ = ["State", "OPEN", "CLAIMABLE", "SETTLED", "FINISHED"]


class State(StrEnum):
    """Where an event stands. Stored as its text value."""

    QUEUED = "queued"
    """Accepted and due at ``available_at``. A processor claims it; an operator may discard it."""

    PROCESSING = "processing"
    """Leased by one worker. That worker settles it, or ends it because an operator cancelled it; or maintenance recovers it
    once the lease has expired."""

    FAILED = "failed"
    """An attempt failed; due again at ``available_at``. A processor claims it; an operator may discard it."""

    PROCESSED = "processed"
    """Effects committed. Final: nobody moves it on."""

    DEAD = "dead"
    """Dead letter: attempts exhausted, rejected, no handler or crash loop. Kept until an operator replays or discards it."""

    DISCARDED = "discarded"
    """An operator gave it up, or a later event of its key took its place. Final, but an operator may still replay it."""


CLAIMABLE = frozenset({State.QUEUED, State.FAILED})
"""States that a processor claims from."""

OPEN = CLAIMABLE | {State.PROCESSING}
"""States that somebody is still bound to move on without being asked."""

SETTLED = frozenset({State.PROCESSED, State.DEAD})
"""States in which the worker's part is done."""

FINISHED = SETTLED | {State.DISCARDED}
"""States with a ``finished_at``; the complement of ``OPEN``."""
