"""Events that are made for further handlers of a type: one for each event and handler, with the same type and data.

They are made before the event's own handler begins, under its lease, so that nothing that becomes of it keeps them from being
there. Their identity is the event's id with the handler's name: however often an event is tried, there is one of each.
"""

import json
from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy.orm import Session

from holdfast.domain.attributes import HANDLER
from holdfast.domain.event import Lease
from holdfast.domain.state import State
from holdfast.domain.update import Update
from holdfast.runtime.ids import uuid7
from holdfast.storage.events import GRACE_SECONDS, Recorded
from holdfast.storage.statements import statement

__all__ = ["fan_out"]

_FAN_OUT = statement("""
-- Parameters: wanted, JSON array of {{id, event_id, token, handler}}; extension, the name of the attribute with the handler;
-- grace_seconds, as for recording. An event whose lease is another one by now is left out. Data goes from row to row as is.
WITH wanted AS (
    SELECT * FROM jsonb_to_recordset(CAST(:wanted AS jsonb)) AS w(id uuid, event_id uuid, token uuid, handler text)
), inserted AS (
    INSERT INTO event (id, tenant, source, ce_id, type, subject, time, audience, datacontenttype, dataschema, extensions,
                       data, data_bytes, is_json, traceparent, parent_id, trace_id, span_id)
    SELECT w.id, e.tenant, e.source, CAST(e.id AS text) || ':' || w.handler, e.type, e.subject, e.time, e.audience,
           e.datacontenttype, e.dataschema, e.extensions || jsonb_build_object(CAST(:extension AS text), w.handler),
           e.data, e.data_bytes, e.is_json, e.traceparent, e.id, e.trace_id, e.span_id
    FROM wanted w
    JOIN event e ON e.id = w.event_id
    JOIN processing_state s ON s.event_id = w.event_id AND s.state = {PROCESSING} AND s.lease_token = w.token
    ORDER BY e.tenant, e.source, e.id, w.handler  -- two transactions with the same ones wait for each other
    ON CONFLICT ON CONSTRAINT uq_event_identity DO NOTHING
    RETURNING id, received_at, tenant, source, subject, type, audience
), queued AS (
    INSERT INTO processing_state (event_id, state, version, available_at, next_dispatch_at, lane, lane_at, tenant_name)
    SELECT id, {QUEUED}, 1, received_at, received_at + make_interval(secs => :grace_seconds),
           CASE WHEN subject IS NOT NULL THEN hashtextextended(concat_ws(E'\\x1f', tenant, source, subject), 0) END,
           CASE WHEN subject IS NOT NULL THEN received_at END, tenant
    FROM inserted
), history AS (
    INSERT INTO event_update (event_id, version, state, attempt, at, published_at)
    SELECT id, 1, {QUEUED}, 0, received_at, received_at FROM inserted  -- the last one for the release before
)
SELECT id, received_at, tenant, type, audience FROM inserted
""")


def fan_out(session: Session, wanted: Mapping[UUID, tuple[Lease, Sequence[str]]]) -> list[Recorded]:
    """Make an event for each of these handlers, by names, of each leased event; returns those that are new.

    They are due at once. The others are there already, or the lease was lost.
    """
    listed = [
        {"id": str(uuid7()), "event_id": str(event_id), "token": str(lease.token), "handler": name}
        for event_id, (lease, names) in wanted.items()
        for name in names
    ]
    parameters = {"wanted": json.dumps(listed), "extension": HANDLER, "grace_seconds": GRACE_SECONDS}
    return [
        Recorded(
            Update(
                event_id=row.id, tenant=row.tenant, type=row.type, audience=row.audience, state=State.QUEUED, version=1,
                attempt=0, at=row.received_at,
            )
        )
        for row in session.execute(_FAN_OUT, parameters)
    ]  # fmt: skip
