"""Lists of events, newest first, page by page; and what happened in each attempt."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, false, func, null, select, text
from sqlalchemy.orm import Session

from holdfast.storage.event_views import EventView, event_view
from holdfast.storage.filters import EventFilter, conditions
from holdfast.storage.tables import Event, ProcessingState

__all__ = ["Attempt", "Page", "attempts", "list_events", "statement"]

_UNREAD = frozenset({"data", "data_bytes", "data_digest", "data_key_id", "is_json"})

_COLUMNS: tuple[Any, ...] = (
    *(column for column in Event.__table__.columns if column.name not in _UNREAD),
    # A page of payloads could be megabytes: a caller that wants one asks for its event.
    null().label("content"),
    false().label("is_json"),
    ProcessingState.state,
    ProcessingState.version,
    ProcessingState.attempt,
    ProcessingState.available_at,
    ProcessingState.last_error,
    ProcessingState.finished_at,
    ProcessingState.priority,
    ProcessingState.pool,
)

_ATTEMPTS = text("""
-- What everybody may see of an error is in the update that one statement wrote together with it.
SELECT a.attempt, a.handler, a.error_type, a.message, u.detail->'error'->>'message' AS reason, a.traceback, a.fingerprint,
       a.worker, a.duration_ms, a.at
FROM attempt_error a LEFT JOIN event_update u ON u.event_id = a.event_id AND u.at = a.at AND u.attempt = a.attempt
WHERE a.event_id = :event_id
UNION ALL
SELECT attempt, handler, NULL, NULL, NULL, NULL, NULL, NULL, duration_ms, processed_at
FROM processed_event_log WHERE event_id = :event_id
ORDER BY at, attempt
""")


@dataclass(frozen=True, slots=True)
class Page:
    """Events without their data. ``next_id`` is where the next page begins; ``None`` on the last one."""

    items: list[EventView]
    next_id: UUID | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt that has ended. ``error_type`` and what belongs to it are ``None`` for the one that succeeded.

    ``message`` and ``traceback`` are for operators, ``reason`` is for everybody; see ``transitions.AttemptError``.

    Numbers start over when an event is replayed, so they may repeat; ``at`` tells the order.
    """

    attempt: int
    handler: str | None
    error_type: str | None
    message: str | None
    reason: str | None
    traceback: str | None
    fingerprint: str | None
    worker: str | None
    duration_ms: int | None
    at: datetime


def list_events(
    session: Session, wanted: EventFilter, *, tenant: str, limit: int, before_id: UUID | None = None
) -> Page:
    """Up to ``limit`` events with ids below ``before_id``, the ``next_id`` of the page before.

    Ids are UUIDv7, so this is the order of arrival. A page costs its length, however far back it is.
    """
    rows = session.execute(statement(wanted, tenant=tenant, limit=limit + 1, before_id=before_id))
    found = [event_view(session, row) for row in rows]
    has_more = len(found) > limit
    return Page(found[:limit], found[limit - 1].event.id if has_more else None)


def statement(wanted: EventFilter, *, tenant: str, limit: int, before_id: UUID | None = None) -> Select[Any]:
    """What :func:`list_events` asks; a test looks at its plans."""
    chosen = (
        select(*_COLUMNS)
        .join(ProcessingState, ProcessingState.event_id == Event.id)
        .where(*conditions(wanted, tenant=tenant))
        .order_by(_order(wanted))
        .limit(limit)
    )
    if before_id is None:
        return chosen
    # Said of both tables: a merge join would otherwise begin with the newest state, however far back the page is.
    return chosen.where(Event.id < before_id, ProcessingState.event_id < before_id)


def _order(wanted: EventFilter) -> ColumnElement[Any]:
    """Newest first. Few events share an id, so they are sorted.

    Where other tenants' events share it the planner would otherwise walk back from the newest event, and expect to meet
    them soon.
    """
    return (Event.id if wanted.ce_id is None else func.coalesce(Event.id, Event.id)).desc()


def attempts(session: Session, *, event_id: UUID) -> list[Attempt]:
    """The attempts of an event that have ended, oldest first. A lost worker's is not among them unless it was the last."""
    return [Attempt(**row) for row in session.execute(_ATTEMPTS, {"event_id": event_id}).mappings()]
