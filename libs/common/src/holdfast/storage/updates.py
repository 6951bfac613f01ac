"""Updates as they are stored: rows of ``event_update``."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from holdfast.domain.state import State
from holdfast.domain.update import Update

__all__ = ["UpdateKey", "find_updates", "update_of"]

UpdateKey = tuple[UUID, int]
"""``(event_id, version)``."""

_FIND = text("""
-- Parameters: event_ids, versions: two arrays of one length.
SELECT u.event_id, u.version, u.state, u.attempt, u.at, u.detail, e.tenant, e.type, e.audience
FROM unnest(CAST(:event_ids AS uuid[]), CAST(:versions AS int[])) AS k(event_id, version)
JOIN event_update u USING (event_id, version) JOIN event e ON e.id = u.event_id
ORDER BY u.at, u.version
""")


def find_updates(session: Session, keys: Iterable[UpdateKey]) -> list[Update]:
    """The updates with these keys, oldest first, without those that are gone."""
    event_ids, versions = zip(*keys, strict=True)
    rows = session.execute(_FIND, {"event_ids": [str(each) for each in event_ids], "versions": list(versions)})
    return [update_of(row) for row in rows]


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
