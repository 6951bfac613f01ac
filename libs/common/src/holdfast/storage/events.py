"""Recording events."""

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.orm import Session

from holdfast.domain.data import Data, is_same_data
from holdfast.domain.event import NewEvent, canonical_json, digest
from holdfast.domain.moment import moment_text
from holdfast.domain.state import State
from holdfast.domain.update import Update
from holdfast.storage.event_columns import SealedData, opened, recordset, sealed_data
from holdfast.storage.lanes import LANE_KEY
from holdfast.storage.planned import Planned
from holdfast.storage.recorded import Recorded, newly_recorded
from holdfast.storage.routing import PLAIN, routes_of, routing_of
from holdfast.storage.served import IS_ORDERED
from holdfast.storage.statements import render, statement

__all__ = ["GRACE_SECONDS", "PLANNED", "Recorded", "record"]

GRACE_SECONDS = 5.0
"""How long a doorbell has before redispatch rings again, where no setting says so: as ingest has it by default."""

_REQUESTED = """requested AS (
    SELECT *, coalesce(convert_to(data_json, 'UTF8'), decode(data_base64, 'base64')) AS content
    FROM jsonb_to_recordset(CAST(:events AS jsonb)) AS r(
        id uuid, tenant text, source text, ce_id text, type text, subject text, time timestamptz, audience text,
        datacontenttype text, dataschema text, extensions jsonb, data_json text, data_base64 text, traceparent text,
        replay_of uuid, parent_id uuid, request_id text, trace_id uuid, span_id text, is_json boolean, data_key_id uuid)
)"""

_RECORD = Planned("record", render("""
-- Parameters: events, JSON array of objects with the columns of "r"; count, how many; grace_seconds, the wait before
-- maintenance rings the bell again; due_at, JSON object of RFC 3339 timestamps by id, or NULL; groups, JSON object of
-- group ids by id, or NULL; routes, JSON object of [priority, pool] by id for those that are not plain, or NULL.
-- Returns the ids of the new ones only where some are not new.
WITH {requested}, inserted AS (
    INSERT INTO event (id, tenant, source, ce_id, type, subject, time, audience, datacontenttype, dataschema,
                       extensions, data_bytes, is_json, traceparent, replay_of, parent_id, request_id, trace_id,
                       span_id, data_key_id)
    SELECT id, tenant, source, ce_id, type, subject, time, audience, datacontenttype, dataschema,
           coalesce(extensions, '{{}}'), content, coalesce(is_json, data_json IS NOT NULL), traceparent, replay_of,
           parent_id, request_id, trace_id, span_id, data_key_id
    FROM requested
    ON CONFLICT ON CONSTRAINT uq_event_identity DO NOTHING
    RETURNING id, received_at, tenant, source, subject, type,
              greatest(received_at, CAST(CAST(:due_at AS jsonb) ->> CAST(id AS text) AS timestamptz)) AS due_at
), queued AS (
    INSERT INTO processing_state (event_id, state, version, available_at, next_dispatch_at, lane, lane_key, lane_at,
                                  group_id, tenant_name, priority, pool)
    SELECT id, {QUEUED}, 1, due_at,
           CASE WHEN due_at > received_at THEN due_at ELSE received_at + make_interval(secs => :grace_seconds) END,
           -- A subject is one within its source (CloudEvents 1.0). lane finds its events, lane_key puts ordered ones in line.
           CASE WHEN subject IS NOT NULL THEN hashtextextended(concat_ws(E'\\x1f', tenant, source, subject), 0) END,
           CASE WHEN subject IS NOT NULL AND {is_ordered} THEN {lane_key} END,
           CASE WHEN subject IS NOT NULL THEN due_at END,
           CAST(CAST(:groups AS jsonb) ->> CAST(id AS text) AS uuid), tenant,
           coalesce(CAST(CAST(:routes AS jsonb) -> CAST(id AS text) ->> 0 AS smallint), {priority}),
           coalesce(CAST(:routes AS jsonb) -> CAST(id AS text) ->> 1, '')
    FROM inserted
), history AS (
    INSERT INTO event_update (event_id, version, state, attempt, at, detail, published_at)
    SELECT id, 1, {QUEUED}, 0, received_at,
           CASE WHEN due_at > received_at THEN jsonb_build_object('deliver_at', CAST(:due_at AS jsonb) ->> CAST(id AS text))
                ELSE '{{}}' END, received_at FROM inserted  -- the last one for the release before
)
SELECT max(received_at) AS received_at, CASE WHEN count(*) < :count THEN array_agg(CAST(id AS text)) END AS new_ids
FROM inserted
""", requested=_REQUESTED, is_ordered=IS_ORDERED.format(alias="inserted"), lane_key=LANE_KEY,
    priority=str(PLAIN.priority)),
    parameters={
        "events": "text", "count": "bigint", "grace_seconds": "float8", "due_at": "jsonb", "groups": "jsonb",
        "routes": "jsonb",
    },
    columns={"received_at": "timestamptz", "new_ids": "text[]"},
)  # fmt: skip

PLANNED = (_RECORD,)

_RESOLVE = statement("""
-- The rows that were there before, a concurrent transaction's included: a new statement has a new snapshot.
-- Parameters: events, as above. is_same is NULL where only a look at the data can tell.
WITH {requested}
SELECT r.id AS requested_id, e.id, e.type, e.audience, e.received_at, e.data_digest, s.state, s.version, s.attempt,
       CASE WHEN e.type <> r.type THEN false
            WHEN e.data_key_id IS NULL AND r.data_key_id IS NULL AND e.data_digest IS NULL
                 AND e.is_json = (r.data_json IS NOT NULL)
                 AND e.data_bytes IS NOT DISTINCT FROM r.content THEN true END AS is_same
FROM requested r
JOIN event e USING (tenant, source, ce_id)
JOIN processing_state s ON s.event_id = e.id
""", requested=_REQUESTED)  # fmt: skip

_DATA = statement("""
-- Parameters: event_id.
SELECT e.id, e.tenant, e.data_bytes, e.is_json, e.datacontenttype, e.data_key_id FROM event e WHERE e.id = :event_id
""")


def record(session: Session, events: Sequence[NewEvent], *, grace_seconds: float) -> list[Recorded]:
    """Insert events as ``queued``, all of them or none; answers are in the order given.

    An identity that exists already is left as it is. ``grace_seconds`` is how long the doorbell has before maintenance
    rings it again.

    Raises:
        KeyMissing: data is to be sealed, or compared with what is, with a key that this process lacks. Nothing was decided.
        DataUnreadable: the data of an event of the same identity does not open, so nobody can tell whether it is the same.
    """
    # Rows go in sorted by identity, so that two batches with the same events wait for each other instead of deadlocking.
    ordered = sorted(events, key=lambda event: (event.tenant, event.source, event.ce_id))
    due_at = {str(event.id): moment_text(event.deliver_at) for event in events if event.deliver_at is not None}
    groups = {str(event.id): str(event.group_id) for event in events if event.group_id is not None}
    routing = routing_of(session)
    routes = routes_of(routing, events)
    sealed = sealed_data(session, ordered)
    parameters = {
        "events": recordset(ordered, sealed), "count": len(events), "grace_seconds": grace_seconds,
        "due_at": json.dumps(due_at) if due_at else None, "groups": json.dumps(groups) if groups else None,
        "routes": json.dumps({str(event_id): route for event_id, route in routes.items()}) if routes else None,
    }  # fmt: skip

    def recorded(event: NewEvent) -> Recorded:
        return newly_recorded(event, row.received_at, routes.get(event.id, PLAIN), routing.weight(event.tenant))

    row = _RECORD.execute(session, parameters).one()
    if row.new_ids is None and row.received_at is not None:
        return [recorded(event) for event in events]
    new = {UUID(each) for each in row.new_ids or ()}
    known = {event.id: recorded(event) for event in events if event.id in new}
    known |= _resolve(session, [event for event in ordered if event.id not in new], sealed)
    return [known[event.id] for event in events]


def _resolve(session: Session, events: Sequence[NewEvent], sealed: SealedData) -> dict[UUID, Recorded]:
    by_id = {event.id: event for event in events}
    rows = session.execute(_RESOLVE, {"events": recordset(events, sealed)}).all()
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
    content = None if stored.data_bytes is None else opened(session, stored, bytes(stored.data_bytes))
    return is_same_data(
        Data(content, stored.is_json, stored.datacontenttype),
        Data(event.content, event.data_json is not None, event.datacontenttype),
    )
