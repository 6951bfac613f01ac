"""Counting events that a later one of their key has replaced, once that is committed."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from holdfast.runtime.telemetry import Metrics
from holdfast.storage.after_commit import after_commit

__all__ = ["count"]


def count(session: Session, events: int) -> None:
    """Add to the metric when the session's transaction commits; never, where it is rolled back."""
    after_commit(session, _add, events)


def _add(numbers: Sequence[int]) -> None:
    Metrics.superseded.inc(sum(numbers))
