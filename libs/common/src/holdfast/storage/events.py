"""Recording events, and reading them back."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from holdfast.domain.data import Data, is_same_data
from holdfast.domain.event import NewEvent, StoredEvent, canonical_json, digest
from holdfast.domain.state import State
from holdfast.domain.update import Update
from holdfast.storage.lanes import LANE_KEY
from holdfast.storage.planned import Planned
from holdfast.storage.served import IS_ORDERED
from holdfast.storage.statements import render, statement

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
    "EVENT_COLUMN_TYPES",
    "PLANNED",
]

_REQUESTED = """requested AS (
    SELECT *, coalesce(convert_to(data_json, 'UTF8'), decode(data_base64, 'base64')) AS content
    FROM jsonb_to_recordset(CAST(:events AS jsonb)) AS r(
        id uuid, tenant text, source text, ce_id text, type text, subject text, time timestamptz, audience text,
        datacontenttype text, dataschema text, extensions jsonb, data_json text, data_base64 text, traceparent text,
        replay_of uuid)
)"""

_RECORD = Planned("record", render("""
-- Parameters: events, JSON array of objects with the columns of "r"; count, how many; grace_seconds, the wait before
-- maintenance rings the bell again. Returns the ids of the new ones only where some are not new.
WITH {requested}, inserted AS (
    INSERT INTO event (id, tenant, source, ce_id, type, subject, time, audience, datacontenttype, dataschema,
                       extensions, data_bytes, is_json, traceparent, replay_of)
    SELECT id, tenant, source, ce_id, type, subject, time, audience, datacontenttype, dataschema,
           coalesce(extensions, '{{}}'), content, data_json IS NOT NULL, traceparent, replay_of
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
SELECT max(received_at) AS received_at, CASE WHEN count(*) < :count THEN array_agg(CAST(id AS text)) END AS new_ids
FROM inserted
""", requested=_REQUESTED, is_ordered=IS_ORDERED.format(alias="inserted"), lane_key=LANE_KEY),
    parameters={"events": "text", "count": "bigint", "grace_seconds": "float8"},
    columns={"received_at": "timestamptz", "new_ids": "text[]"},
)  # fmt: skip

PLANNED = (_RECORD,)

_RESOLVE = statement("""
-- The rows that were there before, a concurrent transaction's included: a new statement has a new snapshot.
-- Parameters: events, as above. is_same is NULL where only a look at the data can tell.
WITH {requested}
SELECT r.id AS requested_id, e.id, e.type, e.audience, e.received_at, e.data_digest, s.state, s.version, s.attempt,
       CASE WHEN e.type <> r.type THEN false
            WHEN e.data_digest IS NULL AND e.is_json = (r.data_json IS NOT NULL)
                 AND e.data_bytes IS NOT DISTINCT FROM r.content THEN true END AS is_same
FROM requested r
JOIN event e USING (tenant, source, ce_id)
JOIN processing_state s ON s.event_id = e.id
""", requested=_REQUESTED)  # fmt: skip

_CONTENT = "coalesce(e.data_bytes, convert_to(CAST(e.data AS text), 'UTF8'))"
"""Events from before revision 0008 have their JSON in ``data``."""

_DATA = statement("""
-- Parameters: event_id.
SELECT e.data_bytes, e.is_json, e.datacontenttype FROM event e WHERE e.id = :event_id
""")

EVENT_COLUMNS = f"""e.id, e.tenant, e.source, e.ce_id, e.type, e.subject, e.time, e.audience, e.datacontenttype,
       e.dataschema, e.extensions, {_CONTENT} AS content, e.is_json OR e.data IS NOT NULL AS is_json, e.traceparent,
       e.received_at"""

EVENT_COLUMN_TYPES = {
    "id": "uuid", "tenant": "text", "source": "text", "ce_id": "text", "type": "text", "subject": "text",
    "time": "timestamptz", "audience": "text", "datacontenttype": "text", "dataschema": "text", "extensions": "jsonb",
    "content": "bytea", "is_json": "boolean", "traceparent": "text", "received_at": "timestamptz",
}  # fmt: skip
"""SQL types of ``EVENT_COLUMNS``, in their order."""

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
    parameters = {"events": _parameter(ordered), "count": len(events), "grace_seconds": grace_seconds}
    row = _RECORD.execute(session, parameters).one()
    if row.new_ids is None and row.received_at is not None:
        return [Recorded(_first_update(event, row.received_at)) for event in events]
    new = {UUID(each) for each in row.new_ids or ()}
    known = {event.id: Recorded(_first_update(event, row.received_at)) for event in events if event.id in new}
    known |= _resolve(session, [event for event in ordered if event.id not in new])
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
        content=None if row.content is None else bytes(row.content),
        is_json=row.is_json,
        traceparent=row.traceparent,
        received_at=row.received_at,
    )


def _resolve(session: Session, events: Sequence[NewEvent]) -> dict[UUID, Recorded]:
    by_id = {event.id: event for event in events}
    rows = session.execute(_RESOLVE, {"events": _parameter(events)}).all()
    return {row.requested_id: _met_again(session, by_id[row.requested_id], row) for row in rows}


def _met_again(session: Session, event: NewEvent, row: Row[Any]) -> Recorded:
    update = Update(
        event_id=row.id,
        tenant=event.tenant,
        type=row.type,
        audience=row.audience,
        state=State(row.state),
        version=row.version,
        attempt=row.attempt,
        at=row.received_at,
    )
    is_same = _is_same(session, event, row) if row.is_same is None else row.is_same
    return Recorded(update, is_duplicate=is_same, is_conflict=not is_same)


def _is_same(session: Session, event: NewEvent, row: Row[Any]) -> bool:
    """Whether the event of this row has the same data; they have the same type."""
    if row.data_digest is not None:  # a release before revision 0008 recorded it
        text = None if event.data_json is None else canonical_json(json.loads(event.data_json))
        return bytes(row.data_digest) == digest(event.type, text, event.data_bytes)
    # One at a time: each may be as large as an event can be.
    stored = session.execute(_DATA, {"event_id": row.id}).one()
    content = None if stored.data_bytes is None else bytes(stored.data_bytes)
    return is_same_data(
        Data(content, stored.is_json, stored.datacontenttype),
        Data(event.content, event.data_json is not None, event.datacontenttype),
    )


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


_encode = msgspec.json.Encoder().encode


def _parameter(events: Sequence[NewEvent]) -> str:
    return _encode([_columns(event) for event in events]).decode()


def _columns(event: NewEvent) -> dict[str, Any]:
    """Of what is absent nothing is sent."""
    columns: dict[str, Any] = {
        "id": str(event.id),
        "tenant": event.tenant,
        "source": event.source,
        "ce_id": event.ce_id,
        "type": event.type,
        "subject": event.subject,
        "time": event.time.isoformat() if event.time else None,
        "audience": event.audience,
        "datacontenttype": event.datacontenttype,
        "dataschema": event.dataschema,
        "extensions": dict(event.extensions) or None,
        "data_json": event.data_json,
        "data_base64": None if event.data_bytes is None else base64.b64encode(event.data_bytes).decode(),
        "traceparent": event.traceparent,
        "replay_of": str(event.replay_of) if event.replay_of else None,
    }
    return columns
