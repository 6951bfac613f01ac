"""Doorbells that seem lost: which events to ring for again."""

import json
from collections.abc import Iterable
from uuid import UUID

from sqlalchemy.orm import Session

from holdfast.domain.event import Doorbell
from holdfast.storage.routing import routing_of
from holdfast.storage.statements import statement

__all__ = ["redispatch_due", "undo_redispatch"]

_REDISPATCH = statement("""
-- Parameters: limit.
WITH due AS (
    SELECT event_id FROM processing_state
    WHERE state IN {CLAIMABLE} AND next_dispatch_at <= now()
    ORDER BY next_dispatch_at LIMIT :limit
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE processing_state s SET
    dispatches = s.dispatches + 1,
    -- 30 s, 1 min, 2 min, … 30 min: a backlog of any length rings a bounded number of times.
    next_dispatch_at = now() + make_interval(secs => least(30 * power(2, least(s.dispatches, 16)), 1800))
-- An array: planned once for every limit, a join would expect a tenth of the backlog and read the whole table.
WHERE s.event_id = ANY (ARRAY(SELECT event_id FROM due))
RETURNING s.event_id, s.version, s.crashes > 0 AS is_suspect, s.tenant_name, s.priority, s.pool
""")

_UNDO_REDISPATCH = statement("""
-- Parameters: doorbells, JSON array of {{event_id, version}}.
UPDATE processing_state s SET dispatches = greatest(s.dispatches - 1, 0), next_dispatch_at = now()
FROM jsonb_to_recordset(CAST(:doorbells AS jsonb)) AS d(event_id uuid, version int)
WHERE s.event_id = d.event_id AND s.version = d.version AND s.state {FOUND_CLAIMABLE}
""")


def redispatch_due(session: Session, *, limit: int) -> list[Doorbell]:
    """Doorbells to ring, after the commit, for up to ``limit`` due events whose last one seems lost.

    The version stays, so copies of the doorbell that are still queued remain valid and a backlog does not livelock.
    """
    rows = session.execute(_REDISPATCH, {"limit": limit})
    routing = routing_of(session)
    return [
        Doorbell(
            row.event_id, row.version, row.is_suspect, row.tenant_name, row.priority, row.pool,
            routing.weight(row.tenant_name),
        )
        for row in rows
    ]  # fmt: skip


def undo_redispatch(session: Session, doorbells: Iterable[Doorbell | tuple[UUID, int]]) -> None:
    """Make events due for redispatch again whose doorbells could not be rung. Those that have moved on stay as they are."""
    listed = [{"event_id": str(event_id), "version": version} for event_id, version, *_ in sorted(doorbells)]
    session.execute(_UNDO_REDISPATCH, {"doorbells": json.dumps(listed)})
