"""How much is waiting, and for how long."""

from sqlalchemy import text
from sqlalchemy.orm import Session

from holdfast.domain.state import OPEN, State

__all__ = ["oldest_due_age_seconds", "open_events"]

_OPEN = text("""
SELECT state, count(*) AS events FROM processing_state WHERE state IN ('queued', 'failed', 'processing') GROUP BY state
""")

_OLDEST_DUE = text("""
SELECT extract(epoch FROM now() - min(available_at)) FROM processing_state
WHERE state IN ('queued', 'failed') AND available_at <= now()
""")


def open_events(session: Session) -> dict[State, int]:
    """How many events are in each open state."""
    counted = {State(row.state): int(row.events) for row in session.execute(_OPEN)}
    return {state: counted.get(state, 0) for state in sorted(OPEN)}


def oldest_due_age_seconds(session: Session) -> float:
    """For how long the oldest due event has been waiting; 0 when none is."""
    return float(session.scalar(_OLDEST_DUE) or 0.0)
