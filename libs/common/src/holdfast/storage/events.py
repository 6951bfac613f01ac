"""Recording events, and reading them back."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from holdfast.domain.event import NewEvent, StoredEvent
from holdfast.domain.moment import moment_text
from holdfast.domain.state import State
from holdfast.domain.update import Update
from holdfast.storage.event_columns import EVENT_COLUMNS, recordset, stored_event
from holdfast.storage.lanes import LANE_KEY
from holdfast.storage.planned import Planned
from holdfast.storage.repetitions import IS_FORGOTTEN, REQUESTED, Recorded, record_all, resolve
from holdfast.storage.served import IS_ORDERED
from holdfast.storage.statements import render, statement

__all__ = [
    "EventView",
    "Recorded",
    "TimelineEntry",
    "event_view",
    "find",
    "has_emitted",
    "record",
    "timeline",
    "GRACE_SECONDS",
    "PLANNED",
]

GRACE_SECONDS = 5.0
"""How long a doorbell has before redispatch rings again, where no setting says so: as ingest has it by default."""

_RECORD = Planned("record", render("""
-- Parameters: events, JSON array of objects with the columns of "r"; count, how many; grace_seconds, the wait before
-- maintenance rings the bell again; due_at, JSON object of RFC 3339 timestamps by id, or NULL;
-- groups, JSON object of group ids by id, or NULL. Returns the ids of the new ones only where some are not new.
WITH {requested}, inserted AS (
    INSERT INTO event (id, tenant, source, ce_id, type, subject, time, audience, datacontenttype, dataschema,
                       extensions, data_bytes, is_json, traceparent, replay_of, parent_id, request_id, trace_id,
                       span_id)
    SELECT id, tenant, source, ce_id, type, subject, time, audience, datacontenttype, dataschema,
           coalesce(extensions, '{{}}'), content, data_json IS NOT NULL, traceparent, replay_of,
           parent_id, request_id, trace_id, span_id
    FROM requested r
    -- Of an event that is gone (ADR 0052). One probe of an index that is most often empty.
    WHERE NOT {is_forgotten}
    ON CONFLICT ON CONSTRAINT uq_event_identity DO NOTHING
    RETURNING id, received_at, tenant, source, subject, type,
              greatest(received_at, CAST(CAST(:due_at AS jsonb) ->> CAST(id AS text) AS timestamptz)) AS due_at
), queued AS (
    INSERT INTO processing_state (event_id, state, version, available_at, next_dispatch_at, lane, lane_key, lane_at,
                                  group_id)
    SELECT id, {QUEUED}, 1, due_at,
           CASE WHEN due_at > received_at THEN due_at ELSE received_at + make_interval(secs => :grace_seconds) END,
           -- A subject is one within its source (CloudEvents 1.0). lane finds its events, lane_key puts ordered ones in line.
           CASE WHEN subject IS NOT NULL THEN hashtextextended(concat_ws(E'\\x1f', tenant, source, subject), 0) END,
           CASE WHEN subject IS NOT NULL AND {is_ordered} THEN {lane_key} END,
           CASE WHEN subject IS NOT NULL THEN due_at END,
           CAST(CAST(:groups AS jsonb) ->> CAST(id AS text) AS uuid)
    FROM inserted
), history AS (
    INSERT INTO event_update (event_id, version, state, attempt, at, detail, published_at)
    SELECT id, 1, {QUEUED}, 0, received_at,
           CASE WHEN due_at > received_at THEN jsonb_build_object('deliver_at', CAST(:due_at AS jsonb) ->> CAST(id AS text))
                ELSE '{{}}' END, received_at FROM inserted  -- the last one for the release before
)
SELECT max(received_at) AS received_at, CASE WHEN count(*) < :count THEN array_agg(CAST(id AS text)) END AS new_ids
FROM inserted
""", requested=REQUESTED, is_forgotten=IS_FORGOTTEN, is_ordered=IS_ORDERED.format(alias="inserted"),
    lane_key=LANE_KEY),
    parameters={"events": "text", "count": "bigint", "grace_seconds": "float8", "due_at": "jsonb", "groups": "jsonb"},
    columns={"received_at": "timestamptz", "new_ids": "text[]"},
)  # fmt: skip

PLANNED = (_RECORD,)

_FIND = statement("""
-- Parameters: event_id, tenant.
SELECT {columns}, s.state, s.version, s.attempt,
       coalesce(s.waiting_since, s.available_at) AS available_at, s.last_error, s.finished_at
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
    """An event and where it stands."""

    event: StoredEvent
    state: State
    version: int
    attempt: int
    available_at: datetime
    last_error: dict[str, Any] | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One transition in an event's history."""

    version: int
    state: State
    attempt: int
    at: datetime
    detail: dict[str, Any]


def record(session: Session, events: Sequence[NewEvent], *, grace_seconds: float) -> list[Recorded]:
    """Insert events as ``queued``, all of them or none; answers are in the order given.

    An identity that exists already is left as it is, and so is that of an event which is gone, within the time for which
    identities are kept. ``grace_seconds`` is how long the doorbell has before maintenance rings it again.

    Raises:
        TransactionConflict: events go as fast as they are sent again; done again it succeeds.
    """
    # Rows go in sorted by identity, so that two batches with the same events wait for each other instead of deadlocking.
    ordered = sorted(events, key=lambda event: (event.tenant, event.source, event.ce_id))
    known = record_all(ordered, lambda missing: _record(session, missing, grace_seconds))
    return [known[event.id] for event in events]


def _record(session: Session, events: Sequence[NewEvent], grace_seconds: float) -> dict[UUID, Recorded]:
    """What became of events in the order of their identities, by their id; without those whose original went just now."""
    due_at = {str(event.id): moment_text(event.deliver_at) for event in events if event.deliver_at is not None}
    groups = {str(event.id): str(event.group_id) for event in events if event.group_id is not None}
    parameters = {
        "events": recordset(events), "count": len(events), "grace_seconds": grace_seconds,
        "due_at": json.dumps(due_at) if due_at else None, "groups": json.dumps(groups) if groups else None,
    }  # fmt: skip
    row = _RECORD.execute(session, parameters).one()
    if row.new_ids is None and row.received_at is not None:
        return {event.id: _recorded(event, row.received_at) for event in events}
    new = {UUID(each) for each in row.new_ids or ()}
    known = {event.id: _recorded(event, row.received_at) for event in events if event.id in new}
    return known | resolve(session, [event for event in events if event.id not in new])


def find(session: Session, *, event_id: UUID, tenant: str) -> EventView | None:
    """One event of this tenant, or ``None``; another tenant's event does not exist here."""
    row = session.execute(_FIND, {"event_id": event_id, "tenant": tenant}).one_or_none()
    return None if row is None else event_view(row)


def has_emitted(session: Session, *, event_id: UUID) -> bool:
    """Whether the event's handler made other events."""
    return bool(session.execute(_HAS_EMITTED, {"event_id": event_id}).scalar_one())


def event_view(row: Row[Any]) -> EventView:
    """The view from a row with ``EVENT_COLUMNS`` and the columns of the processing state."""
    return EventView(
        event=stored_event(row),
        state=State(row.state),
        version=row.version,
        attempt=row.attempt,
        available_at=row.available_at,
        last_error=row.last_error,
        finished_at=row.finished_at,
    )


def timeline(session: Session, *, event_id: UUID) -> list[TimelineEntry]:
    """Every transition of an event, oldest first."""
    rows = session.execute(_TIMELINE, {"event_id": event_id})
    return [TimelineEntry(row.version, State(row.state), row.attempt, row.at, row.detail) for row in rows]


def _recorded(event: NewEvent, received_at: datetime) -> Recorded:
    due_at = event.deliver_at if event.deliver_at is not None and event.deliver_at > received_at else None
    update = Update(
        event_id=event.id,
        tenant=event.tenant,
        type=event.type,
        audience=event.audience,
        state=State.QUEUED,
        version=1,
        attempt=0,
        at=received_at,
        detail={} if due_at is None else {"deliver_at": moment_text(due_at)},
    )
    return Recorded(update, due_at=due_at)
