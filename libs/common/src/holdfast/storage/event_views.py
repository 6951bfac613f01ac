"""Reading events back: one event and where it stands, and every transition of it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from holdfast.domain.event import StoredEvent
from holdfast.domain.state import State
from holdfast.storage.event_columns import EVENT_COLUMNS, stored_event
from holdfast.storage.statements import statement

__all__ = ["EventView", "TimelineEntry", "event_view", "find", "has_emitted", "timeline"]

_FIND = statement("""
-- Parameters: event_id, tenant.
SELECT {columns}, s.state, s.version, s.attempt,
       coalesce(s.waiting_since, s.available_at) AS available_at, s.last_error, s.finished_at,
       s.priority, s.pool
FROM event e JOIN processing_state s ON s.event_id = e.id
WHERE e.id = :event_id AND e.tenant = :tenant
""", columns=EVENT_COLUMNS)  # fmt: skip

_HAS_EMITTED = text("""
-- Parameters: event_id.
SELECT EXISTS (SELECT FROM event WHERE parent_id = :event_id)
""")

_TIMELINE = text("""
-- Parameters: event_id.
SELECT version, state, attempt, at, detail FROM event_update WHERE event_id = :event_id ORDER BY version
""")


@dataclass(frozen=True, slots=True)
class EventView:
    """An event and where it stands. ``priority`` is from 0 to 9; ``pool`` is empty where its handler names none."""

    event: StoredEvent
    state: State
    version: int
    attempt: int
    available_at: datetime
    last_error: dict[str, Any] | None
    finished_at: datetime | None
    priority: int
    pool: str


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One transition in an event's history."""

    version: int
    state: State
    attempt: int
    at: datetime
    detail: dict[str, Any]


def find(session: Session, *, event_id: UUID, tenant: str) -> EventView | None:
    """One event of this tenant, or ``None``; another tenant's event does not exist here."""
    row = session.execute(_FIND, {"event_id": event_id, "tenant": tenant}).one_or_none()
    return None if row is None else event_view(session, row)


def has_emitted(session: Session, *, event_id: UUID) -> bool:
    """Whether the event's handler made other events."""
    return bool(session.execute(_HAS_EMITTED, {"event_id": event_id}).scalar_one())


def event_view(session: Session, row: Row[Any]) -> EventView:
    """The view from a row with ``EVENT_COLUMNS`` and the columns of the processing state."""
    return EventView(
        event=stored_event(session, row),
        state=State(row.state),
        version=row.version,
        attempt=row.attempt,
        available_at=row.available_at,
        last_error=row.last_error,
        finished_at=row.finished_at,
        priority=row.priority,
        pool=row.pool,
    )


def timeline(session: Session, *, event_id: UUID) -> list[TimelineEntry]:
    """Every transition of an event, oldest first."""
    rows = session.execute(_TIMELINE, {"event_id": event_id})
    return [TimelineEntry(row.version, State(row.state), row.attempt, row.at, row.detail) for row in rows]
