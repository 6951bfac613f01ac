"""How much is waiting, and for how long."""

from sqlalchemy.orm import Session

from holdfast.domain.state import State
from holdfast.storage.lanes import ITS_TURN
from holdfast.storage.statements import statement

__all__ = ["oldest_due_age_seconds", "open_events"]

_OPEN = statement("""
-- One count for each partial index that has all of its rows and no others: no index has all open events.
SELECT (SELECT count(*) FROM processing_state WHERE state IN {CLAIMABLE}) AS claimable,
       (SELECT count(*) FROM processing_state WHERE state = {FAILED}) AS failed,
       (SELECT count(*) FROM processing_state WHERE state = {PROCESSING}) AS processing
""")

_OLDEST_DUE = statement("""
-- One that has a predecessor in its lane waits for that, not for a processor: a subject whose first event is tried again
-- for an hour must not look like an hour's backlog. Those that processors have met have stepped aside and are not read.
-- Parameters: with_suspects.
SELECT extract(epoch FROM now() - s.available_at) FROM processing_state s
WHERE s.state IN {CLAIMABLE} AND s.available_at <= now() AND (:with_suspects OR s.crashes = 0)
  AND {turn}
ORDER BY s.available_at LIMIT 1
""", turn=ITS_TURN)  # fmt: skip


def open_events(session: Session) -> dict[State, int]:
    """How many events are in each open state."""
    row = session.execute(_OPEN).one()
    return {
        State.FAILED: row.failed,
        State.PROCESSING: row.processing,
        State.QUEUED: row.claimable - row.failed,
    }


def oldest_due_age_seconds(session: Session, *, with_suspects: bool = True) -> float:
    """For how long the oldest due event has been waiting for a processor; 0 when none is.

    Suspects, which were with a lost worker, wait for one another. However long that is, new events do not add to it.
    """
    return float(session.scalar(_OLDEST_DUE, {"with_suspects": with_suspects}) or 0.0)
