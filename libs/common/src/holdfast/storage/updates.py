"""The outbox: which updates have not reached the live window yet."""

import json
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from holdfast.domain.state import State
from holdfast.domain.update import Update

__all__ = ["UpdateKey", "mark_published", "unpublished", "update_of"]

UpdateKey = tuple[UUID, int]
"""``(event_id, version)``."""

_UNPUBLISHED = text("""
-- Parameters: older_than_seconds, limit.
SELECT u.event_id, u.version, u.state, u.attempt, u.at, u.detail, e.tenant, e.type, e.audience
FROM event_update u JOIN event e ON e.id = u.event_id
WHERE u.published_at IS NULL AND u.at < now() - make_interval(secs => :older_than_seconds)
ORDER BY u.at, u.version LIMIT :limit
""")

_MARK = text("""
-- Parameters: keys, JSON array of {event_id, version}.
UPDATE event_update u SET published_at = now()
FROM jsonb_to_recordset(CAST(:keys AS jsonb)) AS k(event_id uuid, version int)
WHERE u.event_id = k.event_id AND u.version = k.version AND u.published_at IS NULL
""")


def unpublished(session: Session, *, older_than_seconds: float, limit: int) -> list[Update]:
    """Updates that nobody has reported as published, oldest first. Younger ones are left to the process that made them."""
    rows = session.execute(_UNPUBLISHED, {"older_than_seconds": older_than_seconds, "limit": limit})
    return [update_of(row) for row in rows]


def mark_published(session: Session, keys: Iterable[UpdateKey]) -> None:
    """Take updates off the outbox. Marking one twice, or one that does not exist, does nothing."""
    # Sorted, so that two processes that mark the same updates lock rows in one order.
    listed = [{"event_id": str(event_id), "version": version} for event_id, version in sorted(keys)]
    if listed:
        session.execute(_MARK, {"keys": json.dumps(listed)})


def update_of(row: Row[Any]) -> Update:
    """The domain's update from a row with its fields as columns."""
    return Update(
        event_id=row.event_id,
        tenant=row.tenant,
        type=row.type,
        audience=row.audience,
        state=State(row.state),
        version=row.version,
        attempt=row.attempt,
        at=row.at,
        detail=row.detail,
    )
