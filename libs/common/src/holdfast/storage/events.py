"""Recording events."""

import json
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.orm import Session

from holdfast.domain.event import NewEvent
from holdfast.domain.moment import moment_text
from holdfast.storage.event_columns import recordset, sealed_data
from holdfast.storage.lanes import LANE_KEY
from holdfast.storage.planned import Planned
from holdfast.storage.recorded import Recorded, newly_recorded
from holdfast.storage.repetitions import IS_FORGOTTEN, REQUESTED, record_all, resolve
from holdfast.storage.routing import PLAIN, routes_of, routing_of
from holdfast.storage.served import IS_ORDERED
from holdfast.storage.statements import render

__all__ = ["GRACE_SECONDS", "PLANNED", "Recorded", "record"]

GRACE_SECONDS = 5.0
"""How long a doorbell has before redispatch rings again, where no setting says so: as ingest has it by default."""

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
    FROM requested r
    -- Of an event that is gone (ADR 0052). One probe of an index that is most often empty.
    WHERE NOT {is_forgotten}
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
""", requested=REQUESTED, is_forgotten=IS_FORGOTTEN, is_ordered=IS_ORDERED.format(alias="inserted"), lane_key=LANE_KEY,
    priority=str(PLAIN.priority)),
    parameters={
        "events": "text", "count": "bigint", "grace_seconds": "float8", "due_at": "jsonb", "groups": "jsonb",
        "routes": "jsonb",
    },
    columns={"received_at": "timestamptz", "new_ids": "text[]"},
)  # fmt: skip

PLANNED = (_RECORD,)


def record(session: Session, events: Sequence[NewEvent], *, grace_seconds: float) -> list[Recorded]:
    """Insert events as ``queued``, all of them or none; answers are in the order given.

    An identity that exists already is left as it is, and so is that of an event which is gone, within the time for which
    identities are kept. ``grace_seconds`` is how long the doorbell has before maintenance rings it again.

    Raises:
        KeyMissing: data is to be sealed, or compared with what is, with a key that this process lacks. Nothing was decided.
        DataUnreadable: the data of an event of the same identity does not open, so nobody can tell whether it is the same.
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
    routing = routing_of(session)
    routes = routes_of(routing, events)
    sealed = sealed_data(session, events)
    parameters = {
        "events": recordset(events, sealed), "count": len(events), "grace_seconds": grace_seconds,
        "due_at": json.dumps(due_at) if due_at else None, "groups": json.dumps(groups) if groups else None,
        "routes": json.dumps({str(event_id): route for event_id, route in routes.items()}) if routes else None,
    }  # fmt: skip

    def recorded(event: NewEvent) -> Recorded:
        return newly_recorded(event, row.received_at, routes.get(event.id, PLAIN), routing.weight(event.tenant))

    row = _RECORD.execute(session, parameters).one()
    if row.new_ids is None and row.received_at is not None:
        return {event.id: recorded(event) for event in events}
    new = {UUID(each) for each in row.new_ids or ()}
    known = {event.id: recorded(event) for event in events if event.id in new}
    return known | resolve(session, [event for event in events if event.id not in new], sealed)
