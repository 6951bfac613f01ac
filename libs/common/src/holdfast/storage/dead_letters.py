"""Dead letters, grouped by what killed them."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Session

from holdfast.storage.statements import statement

__all__ = ["DeadGroup", "dead_groups"]

_GROUPS = statement("""
-- The sample is the newest event: ids are UUIDv7.
WITH dead AS (
    SELECT s.event_id, s.finished_at, s.last_error->>'handler' AS handler, s.last_error->>'type' AS error_type,
           s.last_error->>'fingerprint' AS fingerprint,
           -- Where no handler ran it is the type that tells causes apart.
           CASE WHEN s.last_error->>'handler' IS NULL THEN e.type END AS event_type
    FROM processing_state s JOIN event e ON e.id = s.event_id
    WHERE s.state = {DEAD} AND e.tenant = :tenant
), grouped AS (
    SELECT handler, error_type, fingerprint, event_type, count(*) AS events,
           count(*) FILTER (WHERE finished_at > now() - interval '1 hour') AS last_hour,
           min(finished_at) AS first_at, max(finished_at) AS last_at, CAST(max(CAST(event_id AS text)) AS uuid) AS sample_id
    FROM dead GROUP BY handler, error_type, fingerprint, event_type
    ORDER BY events DESC, last_at DESC LIMIT :limit
)
SELECT g.*, e.type AS sample_type, s.last_error->>'message' AS sample_message,
       s.last_error->>'reason' AS sample_reason
FROM grouped g JOIN event e ON e.id = g.sample_id JOIN processing_state s ON s.event_id = g.sample_id
ORDER BY g.events DESC, g.last_at DESC
""")


@dataclass(frozen=True, slots=True)
class DeadGroup:
    """Dead letters with one cause. Where no handler ran there is an ``event_type``, and no ``handler`` or ``fingerprint``.

    ``last_hour`` of the ``events`` died within the last hour: whether it goes on.
    ``sample_message`` is for operators, ``sample_reason`` for everybody; see ``transitions.AttemptError``.
    """

    handler: str | None
    error_type: str | None
    fingerprint: str | None
    event_type: str | None
    events: int
    last_hour: int
    first_at: datetime
    last_at: datetime
    sample_id: UUID
    sample_type: str
    sample_message: str | None
    sample_reason: str | None


def dead_groups(session: Session, *, tenant: str, limit: int) -> list[DeadGroup]:
    """The ``limit`` largest groups, largest first."""
    rows = session.execute(_GROUPS, {"tenant": tenant, "limit": limit}).mappings()
    return [DeadGroup(**row) for row in rows]
