"""What a tenant has open, for a page that is loaded often: bounded work, however long the queue is."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from holdfast.domain.state import State
from holdfast.storage.lanes import ITS_TURN
from holdfast.storage.statements import statement

__all__ = ["LOOK_AT", "OpenCounts", "open_counts"]

LOOK_AT = 5000
"""Open events that are read, of all tenants, the longest due first. Reading them takes some 20 ms; a count of a million would
take a second for each load of a page."""

_OPEN = statement("""
-- No index has a tenant's open events, so a bounded number of all tenants' is read: two partial indexes, each in its order.
-- Parameters: tenant, look_at.
WITH looked_at AS (
    (SELECT event_id, state, available_at FROM processing_state
     WHERE state IN {CLAIMABLE} ORDER BY available_at LIMIT :look_at)
    UNION ALL
    (SELECT event_id, state, available_at FROM processing_state WHERE state = {PROCESSING} LIMIT :look_at)
)
SELECT count(*) FILTER (WHERE l.state = {QUEUED} AND e.tenant = :tenant) AS queued,
       count(*) FILTER (WHERE l.state = {FAILED} AND e.tenant = :tenant) AS failed,
       count(*) FILTER (WHERE l.state = {PROCESSING} AND e.tenant = :tenant) AS processing,
       count(*) >= :look_at AS is_partial
FROM looked_at l JOIN event e ON e.id = l.event_id
""")

_OLDEST_DUE = statement("""
-- The longest due event that waits for a processor and not for a predecessor in its lane. Parameters: tenant, look_at.
SELECT min(due.available_at) FROM (
    SELECT s.event_id, s.available_at FROM processing_state s
    WHERE s.state IN {CLAIMABLE} AND s.available_at <= now() AND {turn}
    ORDER BY s.available_at LIMIT :look_at
) due JOIN event e ON e.id = due.event_id
WHERE e.tenant = :tenant
""", turn=ITS_TURN)  # fmt: skip

LOOK_AT_DUE = 500
"""Due events that are looked at for the tenant's longest due one: each costs a look at its lane as well."""


@dataclass(frozen=True, slots=True)
class OpenCounts:
    """A tenant's open events by state. ``is_partial``: there were more than :data:`LOOK_AT` to look at, so there may be more
    than these. ``oldest_due_at``: since when the longest due one has been due; ``None`` where none was met."""

    queued: int
    failed: int
    processing: int
    is_partial: bool
    oldest_due_at: datetime | None

    def count(self, state: State) -> int:
        """How many are in this open state."""
        return {State.QUEUED: self.queued, State.FAILED: self.failed, State.PROCESSING: self.processing}[state]


def open_counts(session: Session, *, tenant: str, look_at: int = LOOK_AT) -> OpenCounts:
    """Count what the tenant has open, within ``look_at`` open events of all tenants."""
    row = session.execute(_OPEN, {"tenant": tenant, "look_at": look_at}).one()
    oldest = session.scalar(_OLDEST_DUE, {"tenant": tenant, "look_at": min(look_at, LOOK_AT_DUE)})
    return OpenCounts(row.queued, row.failed, row.processing, row.is_partial, oldest)
