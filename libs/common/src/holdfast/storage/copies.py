"""New events that repeat processed ones.

A processed event stays as it is: its effects are in the database, and the processed-event log says so. To repeat it is to
record another event with the same content, linked by ``replay_of`` and with an identity of its own.
"""

from collections.abc import Sequence
from dataclasses import fields
from uuid import UUID

from sqlalchemy import bindparam
from sqlalchemy.orm import Session

from holdfast.domain.errors import DataUnreadable
from holdfast.domain.event import NewEvent, StoredEvent, UnreadableEvent
from holdfast.runtime.ids import uuid7
from holdfast.storage.event_columns import EVENT_COLUMNS, stored_event
from holdfast.storage.events import Recorded, record
from holdfast.storage.statements import statement

__all__ = ["JSON", "record_copies", "record_copy"]

JSON = "application/json"

_DATA = ("content", "is_json", "datacontenttype")

_ORIGINALS = statement("""
SELECT {columns} FROM event e WHERE e.id IN :event_ids
""", columns=EVENT_COLUMNS).bindparams(bindparam("event_ids", expanding=True))  # fmt: skip


def record_copies(
    session: Session, event_ids: Sequence[UUID], *, idempotency_key: str, grace_seconds: float
) -> dict[UUID, Recorded]:
    """Record a copy of each event, once for each ``idempotency_key``; by the original's id, without those that are gone.

    Those whose sealed data was changed are gone too.

    Raises:
        KeyMissing: data of one is sealed under a key that this process lacks.
    """
    originals = _originals(session, event_ids)
    copies = {
        event.id: _copy(event, idempotency_key)
        for event in originals
        if not (isinstance(event, UnreadableEvent) and isinstance(event.fault, DataUnreadable))
    }
    return dict(zip(copies, record(session, list(copies.values()), grace_seconds=grace_seconds), strict=True))


def record_copy(
    session: Session, event_id: UUID, *, idempotency_key: str, grace_seconds: float, data_json: str | None = None
) -> Recorded:
    """Record a copy of an event that exists, with ``data_json`` in place of its data unless that is ``None``.

    Raises:
        KeyMissing, DataUnreadable: the event's own data is wanted, and does not open.
    """
    [original] = _originals(session, [event_id])
    copy = _copy(original if data_json is None else _edited(original, data_json), idempotency_key)
    return record(session, [copy], grace_seconds=grace_seconds)[0]


def _originals(session: Session, event_ids: Sequence[UUID]) -> list[StoredEvent]:
    if not event_ids:
        return []
    return [stored_event(session, row) for row in session.execute(_ORIGINALS, {"event_ids": list(event_ids)}).all()]


def _edited(event: StoredEvent, data_json: str) -> StoredEvent:
    """With other data in its place, which need not open for that."""
    was_json = event.is_json and (isinstance(event, UnreadableEvent) or event.content is not None)
    values = {each.name: getattr(event, each.name) for each in fields(StoredEvent) if each.name not in _DATA}
    kind = event.datacontenttype if was_json else JSON
    return StoredEvent(**values | {"content": data_json.encode(), "is_json": True, "datacontenttype": kind})


def _copy(event: StoredEvent, idempotency_key: str) -> NewEvent:
    content = event.content
    return NewEvent(
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
        data_json=content.decode() if event.is_json and content is not None else None,
        data_bytes=None if event.is_json else content,
        traceparent=event.traceparent,
        replay_of=event.id,
        origin=event.origin._replace(request_id=None),  # found by its trace, and no request of its own
    )
