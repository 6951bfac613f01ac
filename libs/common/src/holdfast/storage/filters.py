"""Which events a list, or a replay, is about."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement

from holdfast.domain.state import State
from holdfast.storage.tables import Event, ProcessingState

__all__ = ["EventFilter", "conditions"]

_SLACK_MS = 24 * 3600 * 1000
"""By how much the clock in an event's id (ingest's) may differ from ``received_at`` (PostgreSQL's), generously."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_MS = 2**48 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """All that is given must hold; nothing given is every event of the tenant.

    ``error_type``, ``handler`` and ``fingerprint`` are those of the last failed attempt; an event that was processed in the
    end has none. ``trace_id`` has 32 hexadecimal digits. ``parent_id`` is the event whose handler emitted them.
    ``received_after`` is inclusive and ``received_before`` is not, so adjoining ranges share no event.
    """

    source: str | None = None
    ce_id: str | None = None
    type: str | None = None
    state: State | None = None
    subject: str | None = None
    audience: str | None = None
    error_type: str | None = None
    handler: str | None = None
    fingerprint: str | None = None
    request_id: str | None = None
    trace_id: str | None = None
    parent_id: str | None = None
    received_after: datetime | None = None
    received_before: datetime | None = None


def conditions(wanted: EventFilter, *, tenant: str) -> list[ColumnElement[bool]]:
    """The filter over ``event`` joined with ``processing_state``. Only what is given is asked, so that indexes fit."""
    error = ProcessingState.last_error
    asked: list[tuple[Any, Any]] = [
        (Event.source, wanted.source),
        (Event.ce_id, wanted.ce_id),
        (Event.type, wanted.type),
        (Event.subject, wanted.subject),
        (Event.audience, wanted.audience),
        (Event.request_id, wanted.request_id),
        (Event.trace_id, None if wanted.trace_id is None else UUID(wanted.trace_id)),
        (Event.parent_id, None if wanted.parent_id is None else UUID(wanted.parent_id)),
        (ProcessingState.state, wanted.state),
        (error["type"].astext, wanted.error_type),
        (error["handler"].astext, wanted.handler),
        (error["fingerprint"].astext, wanted.fingerprint),
    ]
    found = [Event.tenant == tenant, *(column == value for column, value in asked if value is not None)]
    return found + _received(wanted)


def _received(wanted: EventFilter) -> list[ColumnElement[bool]]:
    """``received_at`` decides; the bounds on the id, which begins with the time, only save reading the rest of the index."""
    found: list[ColumnElement[bool]] = []
    if wanted.received_after is not None:
        oldest = _id_at(wanted.received_after, -_SLACK_MS)
        found += [Event.received_at >= wanted.received_after, Event.id >= oldest, ProcessingState.event_id >= oldest]
    if wanted.received_before is not None:
        newest = _id_at(wanted.received_before, _SLACK_MS)
        found += [Event.received_at < wanted.received_before, Event.id <= newest, ProcessingState.event_id <= newest]
    return found


def _id_at(moment: datetime, offset_ms: int) -> UUID:
    """The least UUID whose first 48 bits, as those of a UUIDv7, are this time in milliseconds since 1970."""
    milliseconds = int((moment - _EPOCH).total_seconds() * 1000) + offset_ms
    return UUID(int=min(max(milliseconds, 0), _MAX_MS) << 80)
