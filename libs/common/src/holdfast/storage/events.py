"""Recording events, and reading them back."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from holdfast.domain.event import NewEvent, StoredEvent
from holdfast.domain.state import State
from holdfast.domain.update import Update
from holdfast.storage.lanes import LANE_KEY
from holdfast.storage.served import IS_ORDERED
from holdfast.storage.statements import statement

__all__ = [
    "EventView",
    "Recorded",
    "TimelineEntry",
    "event_view",
    "find",
    "record",
    "stored_event",
    "timeline",
    "EVENT_COLUMNS",
]

_RECORD = statement("""
-- Parameters: events, JSON array of objects with the columns of "requested"; grace_seconds, the wait before maintenance
-- rings the bell again.
WITH requested AS (
    SELECT * FROM jsonb_to_recordset(CAST(:events AS jsonb)) AS r(
        id uuid, tenant text, source text, ce_id text, type text, subject text, time timestamptz, audience text,
        datacontenttype text, dataschema text, extensions jsonb, data_json text, data_base64 text, digest_hex text,
        traceparent text, replay_of uuid)
), inserted AS (
    INSERT INTO event (id, tenant, source, ce_id, type, subject, time, audience, datacontenttype, dataschema,
                       extensions, data, data_bytes, data_digest, traceparent, replay_of)
    SELECT id, tenant, source, ce_id, type, subject, time, audience, datacontenttype, dataschema,
           extensions, CAST(data_json AS jsonb), decode(data_base64, 'base64'), decode(digest_hex, 'hex'), traceparent,
           replay_of
    FROM requested
    ON CONFLICT ON CONSTRAINT uq_event_identity DO NOTHING
    RETURNING id, received_at, tenant, source, subject, type
), queued AS (
    INSERT INTO processing_state (event_id, state, version, available_at, next_dispatch_at, lane, lane_key, lane_at)
    SELECT id, {QUEUED}, 1, received_at, received_at + make_interval(secs => :grace_seconds),
           -- A subject is one within its source (CloudEvents 1.0). lane finds its events, lane_key puts ordered ones in line.
           CASE WHEN subject IS NOT NULL THEN hashtextextended(concat_ws(E'\\x1f', tenant, source, subject), 0) END,
           CASE WHEN subject IS NOT NULL AND {is_ordered} THEN {lane_key} END,
           CASE WHEN subject IS NOT NULL THEN received_at END
    FROM inserted
), history AS (
    INSERT INTO event_update (event_id, version, state, attempt, at, published_at)
    SELECT id, 1, {QUEUED}, 0, received_at, received_at FROM inserted  -- the last one for the release before
)
SELECT id, received_at FROM inserted
""", is_ordered=IS_ORDERED.format(alias="inserted"), lane_key=LANE_KEY)  # fmt: skip

_RESOLVE = text("""
-- The rows that were there before, a concurrent transaction's included: a new statement has a new snapshot.
-- Parameters: events, JSON array of objects with the columns of "r".
SELECT r.id AS requested_id, e.id, e.type, e.audience, e.received_at, e.data_digest = decode(r.digest_hex, 'hex') AS is_same,
       s.state, s.version, s.attempt
FROM jsonb_to_recordset(CAST(:events AS jsonb)) AS r(id uuid, tenant text, source text, ce_id text, digest_hex text)
JOIN event e USING (tenant, source, ce_id)
JOIN processing_state s ON s.event_id = e.id
""")

EVENT_COLUMNS = """e.id, e.tenant, e.source, e.ce_id, e.type, e.subject, e.time, e.audience, e.datacontenttype,
       e.dataschema, e.extensions, e.data, e.data_bytes, e.traceparent, e.received_at"""

_FIND = statement("""
-- Parameters: event_id, tenant.
SELECT {columns}, e.replay_of, s.state, s.version, s.attempt,
       coalesce(s.waiting_since, s.available_at) AS available_at, s.last_error, s.finished_at
FROM event e JOIN processing_state s ON s.event_id = e.id
WHERE e.id = :event_id AND e.tenant = :tenant
""", columns=EVENT_COLUMNS)  # fmt: skip

_TIMELINE = text("""
-- Parameters: event_id.
SELECT version, state, attempt, at, detail FROM event_update WHERE event_id = :event_id ORDER BY version
""")


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of one event handed to :func:`record`.

    ``update`` is the event's state now: the new event's first update, or the original's current state for a duplicate.
    ``is_conflict``: the identity belongs to an event with another type or data, which is left untouched.
    """

    update: Update
    is_duplicate: bool = False
    is_conflict: bool = False

    @property
    def is_new(self) -> bool:
        """Whether the event was not there before."""
        return not (self.is_duplicate or self.is_conflict)


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
    replay_of: UUID | None


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

    An identity that exists already is left as it is. ``grace_seconds`` is how long the doorbell has before maintenance
    rings it again.
    """
    # Rows go in sorted by identity, so that two batches with the same events wait for each other instead of deadlocking.
    ordered = sorted(events, key=lambda event: (event.tenant, event.source, event.ce_id))
    parameter = json.dumps([_columns(event) for event in ordered])
    rows = session.execute(_RECORD, {"events": parameter, "grace_seconds": grace_seconds})
    received = {row.id: row.received_at for row in rows}
    known = {event.id: Recorded(_first_update(event, received[event.id])) for event in events if event.id in received}
    if len(known) < len(events):
        known |= _resolve(session, [event for event in ordered if event.id not in received])
    return [known[event.id] for event in events]


def find(session: Session, *, event_id: UUID, tenant: str) -> EventView | None:
    """One event of this tenant, or ``None``; another tenant's event does not exist here."""
    row = session.execute(_FIND, {"event_id": event_id, "tenant": tenant}).one_or_none()
    return None if row is None else event_view(row)


def event_view(row: Row[Any]) -> EventView:
    """The view from a row with ``EVENT_COLUMNS``, ``replay_of`` and the columns of the processing state."""
    return EventView(
        event=stored_event(row),
        state=State(row.state),
        version=row.version,
        attempt=row.attempt,
        available_at=row.available_at,
        last_error=row.last_error,
        finished_at=row.finished_at,
        replay_of=row.replay_of,
    )


def timeline(session: Session, *, event_id: UUID) -> list[TimelineEntry]:
    """Every transition of an event, oldest first."""
    rows = session.execute(_TIMELINE, {"event_id": event_id})
    return [TimelineEntry(row.version, State(row.state), row.attempt, row.at, row.detail) for row in rows]


def stored_event(row: Row[Any]) -> StoredEvent:
    """The domain's event from a row with ``EVENT_COLUMNS``."""
    return StoredEvent(
        id=row.id,
        tenant=row.tenant,
        source=row.source,
        ce_id=row.ce_id,
        type=row.type,
        subject=row.subject,
        time=row.time,
        audience=row.audience,
        datacontenttype=row.datacontenttype,
        dataschema=row.dataschema,
        extensions=row.extensions,
        data=row.data if row.data_bytes is None else bytes(row.data_bytes),
        traceparent=row.traceparent,
        received_at=row.received_at,
    )


def _resolve(session: Session, events: Sequence[NewEvent]) -> dict[UUID, Recorded]:
    by_id = {event.id: event for event in events}
    rows = session.execute(_RESOLVE, {"events": json.dumps([_identity(event) for event in events])})
    return {
        row.requested_id: Recorded(
            Update(
                event_id=row.id,
                tenant=by_id[row.requested_id].tenant,
                type=row.type,
                audience=row.audience,
                state=State(row.state),
                version=row.version,
                attempt=row.attempt,
                at=row.received_at,
            ),
            is_duplicate=row.is_same,
            is_conflict=not row.is_same,
        )
        for row in rows
    }


def _first_update(event: NewEvent, received_at: datetime) -> Update:
    return Update(
        event_id=event.id,
        tenant=event.tenant,
        type=event.type,
        audience=event.audience,
        state=State.QUEUED,
        version=1,
        attempt=0,
        at=received_at,
    )


def _identity(event: NewEvent) -> dict[str, Any]:
    return {
        "id": str(event.id),
        "tenant": event.tenant,
        "source": event.source,
        "ce_id": event.ce_id,
        "digest_hex": event.data_digest.hex(),
    }


def _columns(event: NewEvent) -> dict[str, Any]:
    return _identity(event) | {
        "type": event.type,
        "subject": event.subject,
        "time": event.time.isoformat() if event.time else None,
        "audience": event.audience,
        "datacontenttype": event.datacontenttype,
        "dataschema": event.dataschema,
        "extensions": dict(event.extensions),
        # As text inside the JSON parameter: a JSON null must become 'null'::jsonb, while absent data becomes NULL.
        "data_json": event.data_json,
        "data_base64": None if event.data_bytes is None else base64.b64encode(event.data_bytes).decode(),
        "traceparent": event.traceparent,
        "replay_of": str(event.replay_of) if event.replay_of else None,
    }
