"""New events that repeat processed ones.

A processed event stays as it is: its effects are in the database, and the processed-event log says so. To repeat it is to
record another event with the same content, linked by ``replay_of`` and with an identity of its own.
"""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from sqlalchemy import bindparam
from sqlalchemy.orm import Session

from holdfast.domain.event import NewEvent
from holdfast.runtime.ids import uuid7
from holdfast.storage.event_columns import EVENT_COLUMNS, stored_event
from holdfast.storage.events import Recorded, record
from holdfast.storage.statements import statement

__all__ = ["JSON", "record_copies", "record_copy"]

JSON = "application/json"

_ORIGINALS = statement("""
SELECT {columns} FROM event e WHERE e.id IN :event_ids
""", columns=EVENT_COLUMNS).bindparams(bindparam("event_ids", expanding=True))  # fmt: skip


def record_copies(
    session: Session, event_ids: Sequence[UUID], *, idempotency_key: str, grace_seconds: float
) -> dict[UUID, Recorded]:
    """Record a copy of each event, once for each ``idempotency_key``; by the original's id, without those that are gone."""
    copies = _copies(session, event_ids, idempotency_key)
    return dict(zip(copies, record(session, list(copies.values()), grace_seconds=grace_seconds), strict=True))


def record_copy(
    session: Session, event_id: UUID, *, idempotency_key: str, grace_seconds: float, data_json: str | None = None
) -> Recorded:
    """Record a copy of an event that exists, with ``data_json`` in place of its data unless that is ``None``."""
    copy = _copies(session, [event_id], idempotency_key)[event_id]
    if data_json is not None:
        kind = copy.datacontenttype if copy.data_json is not None else JSON
        copy = replace(copy, data_json=data_json, data_bytes=None, datacontenttype=kind)
    return record(session, [copy], grace_seconds=grace_seconds)[0]


def _copies(session: Session, event_ids: Sequence[UUID], idempotency_key: str) -> dict[UUID, NewEvent]:
    if not event_ids:
        return {}
    rows = session.execute(_ORIGINALS, {"event_ids": list(event_ids)})
    found = {row.id: stored_event(row) for row in rows}
    return {
        event_id: NewEvent(
            id=uuid7(),
            tenant=event.tenant,
            source=event.source,
            ce_id=f"replay:{event.id}:{idempotency_key}",
            type=event.type,
            subject=event.subject,
            time=event.time,
            audience=event.audience,
            datacontenttype=event.datacontenttype,
            dataschema=event.dataschema,
            extensions=event.extensions,
            data_json=event.content.decode() if event.is_json and event.content is not None else None,
            data_bytes=None if event.is_json else event.content,
            traceparent=event.traceparent,
            replay_of=event.id,
            origin=event.origin._replace(request_id=None),  # found by its trace, and no request of its own
        )
        for event_id, event in found.items()
    }
