"""The columns of an event that statements ask for, and the event made of a row with them."""

import base64
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Row
from sqlalchemy.orm import Session

from holdfast.domain.attributes import HANDLER
from holdfast.domain.errors import DataUnreadable, KeyMissing
from holdfast.domain.event import NewEvent, StoredEvent, UnreadableEvent
from holdfast.domain.trace import Origin, read_traceparent
from holdfast.storage.sealing import Purpose, Sealed, sealing_of, unsealed

__all__ = [
    "CONTENT", "EVENT_COLUMNS", "EVENT_COLUMN_TYPES", "ROUTE", "SealedData", "opened", "recordset", "sealed_data",
    "stored_event",
]  # fmt: skip

CONTENT = "coalesce(e.data_bytes, convert_to(CAST(e.data AS text), 'UTF8'))"
"""Events from before revision 0008 have their JSON in ``data``."""

SealedData = Mapping[UUID, Sealed]
"""Sealed data of new events, by their ids."""

EVENT_COLUMNS = f"""e.id, e.tenant, e.source, e.ce_id, e.type, e.subject, e.time, e.audience, e.datacontenttype,
       e.dataschema, e.extensions, {CONTENT} AS content, e.is_json OR e.data IS NOT NULL AS is_json, e.traceparent,
       e.received_at, e.replay_of, e.parent_id, e.request_id, e.trace_id, e.span_id, e.data_key_id"""

EVENT_COLUMN_TYPES = {
    "id": "uuid", "tenant": "text", "source": "text", "ce_id": "text", "type": "text", "subject": "text",
    "time": "timestamptz", "audience": "text", "datacontenttype": "text", "dataschema": "text", "extensions": "jsonb",
    "content": "bytea", "is_json": "boolean", "traceparent": "text", "received_at": "timestamptz",
    "replay_of": "uuid", "parent_id": "uuid", "request_id": "text", "trace_id": "uuid", "span_id": "text",
    "data_key_id": "uuid",
}  # fmt: skip
"""SQL types of ``EVENT_COLUMNS``, in their order."""

ROUTE = f"e.type || coalesce(E'\\x1f' || (e.extensions ->> '{HANDLER}'), '')"
"""``StoredEvent.route`` of the event ``e``, as ``domain.event_types`` makes it."""


def stored_event(session: Session, row: Row[Any]) -> StoredEvent:
    """The domain's event from a row with ``EVENT_COLUMNS``; an ``UnreadableEvent`` where its data does not open here."""
    make: Callable[..., StoredEvent] = StoredEvent
    content = None if row.content is None else bytes(row.content)
    if content is not None and row.data_key_id is not None:
        try:
            content = opened(session, row, content)
        except (KeyMissing, DataUnreadable) as exc:
            make = partial(UnreadableEvent, fault=exc)
    return make(
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
        content=content,
        is_json=row.is_json,
        traceparent=row.traceparent,
        received_at=row.received_at,
        replay_of=row.replay_of,
        parent_id=row.parent_id,
        origin=_origin(row),
    )


def opened(session: Session, row: Row[Any], content: bytes) -> bytes:
    """The data of an event as it was sent; the row has ``id``, ``tenant``, ``is_json`` and ``data_key_id``.

    Raises:
        KeyMissing, DataUnreadable: see ``storage.sealing``.
    """
    return unsealed(session, Purpose("event", row.id, row.tenant, row.is_json), content, row.data_key_id)


def sealed_data(session: Session, events: Sequence[NewEvent]) -> SealedData:
    """The data of new events, sealed, by their ids; without those that have none. Empty where nothing is sealed.

    Raises:
        KeyMissing: see ``storage.sealing``.
    """
    sealing = sealing_of(session)
    if sealing is None or not sealing.is_sealing:
        return {}
    return {
        event.id: sealing.seal(
            session, Purpose("event", event.id, event.tenant, event.data_json is not None), event.content
        )
        for event in events
        if event.content is not None
    }


def _origin(row: Row[Any]) -> Origin:
    if row.trace_id is not None:
        return Origin(row.request_id, row.trace_id.hex, row.span_id)
    # One from before revision 0013 has its trace in its attribute alone.
    context = read_traceparent(row.traceparent)
    return Origin(row.request_id, None if context is None else context.trace_id)


_encode = msgspec.json.Encoder().encode


def recordset(events: Sequence[NewEvent], sealed: SealedData) -> str:
    """New events as a JSON array of objects with the columns that a statement takes apart.

    Of those whose data is ``sealed``, by their ids, no plain data is sent: a server may log its statements.
    """
    if not sealed:
        return _encode([_columns(event) for event in events]).decode()
    return _encode([_columns(event) | _sealed_columns(event, sealed.get(event.id)) for event in events]).decode()


def _sealed_columns(event: NewEvent, sealed: Sealed | None) -> dict[str, Any]:
    if sealed is None:
        return {}
    return {
        "data_json": None, "data_base64": base64.b64encode(sealed.content).decode(), "data_key_id": str(sealed.key_id),
        "is_json": event.data_json is not None,
    }  # fmt: skip


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
        "parent_id": str(event.parent_id) if event.parent_id else None,
        "request_id": event.origin.request_id,
        "trace_id": event.origin.trace_id,
        "span_id": event.origin.span_id,
    }
    return columns
