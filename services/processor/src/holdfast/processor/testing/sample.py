"""Events that are made up for tests, and those that a handler made."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel

from holdfast.domain.attributes import DELIVER_AT
from holdfast.domain.event import Lease, NewEvent, NewGroup, StoredEvent
from holdfast.processor.handlers.registry import Handler
from holdfast.runtime.ids import utc_now, uuid7

__all__ = ["Emitted", "EmittedGroup", "sample_lease"]


@dataclass(frozen=True, slots=True)
class Emitted:
    """An event that a handler made. ``key``: the one that it chose, or ``None``."""

    type: str
    data: Any
    subject: str | None
    audience: str | None
    deliver_at: datetime | None
    key: str | None
    extensions: Mapping[str, Any]

    @classmethod
    def of(cls, event: NewEvent) -> Self:
        """As the handler made it."""
        is_named = event.ce_id.startswith(f"{event.parent_id}:")
        return cls(
            event.type, None if event.data_json is None else json.loads(event.data_json), event.subject, event.audience,
            event.deliver_at, None if is_named else event.ce_id,
            {name: value for name, value in event.extensions.items() if name != DELIVER_AT},
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class EmittedGroup:
    """A group that a handler made: type and data of the event that follows it, and its members."""

    type: str
    data: Any
    members: list[Emitted]

    @classmethod
    def of(cls, group: NewGroup, events: Iterable[NewEvent]) -> Self:
        """As the handler made it, with those of the events that are its members."""
        data = None if group.data_json is None else json.loads(group.data_json)
        return cls(group.type, data, [Emitted.of(event) for event in events if event.group_id == group.id])


def sample_lease(
    handler: Handler, payload: Any, event_id: UUID | None, attributes: dict[str, Any], number: int
) -> Lease:
    """An event that the handler serves, claimed for its attempt ``number``."""
    event = _event(handler, payload, event_id or uuid7(), attributes)
    return Lease(
        event=event, token=uuid7(), version=2 * number, attempt=number, crashes=0, seconds=30.0, claimed_at=utc_now()
    )


def _event(handler: Handler, payload: Any, event_id: UUID, attributes: dict[str, Any]) -> StoredEvent:
    types = [pattern for pattern in handler.patterns if "*" not in pattern]
    defaults: dict[str, Any] = {
        "tenant": "test", "source": "/test", "ce_id": str(event_id), "type": types[0] if types else "test",
        "subject": None, "time": None, "audience": None, "datacontenttype": "application/json", "dataschema": None,
        "extensions": {}, "traceparent": None, "received_at": utc_now(),
    }  # fmt: skip
    data = payload.model_dump(mode="json", by_alias=True) if isinstance(payload, BaseModel) else payload
    content = data if isinstance(data, bytes) else _json(data)
    sent = {"id": event_id, "content": content, "is_json": not isinstance(data, bytes)}
    event = StoredEvent(**(defaults | attributes | sent))
    vars(event)["data"] = data  # the very object that the test has made, a date in it or a tuple
    return event


def _json(data: Any) -> bytes | None:
    """What a producer would send; ``None`` for what has no JSON."""
    try:
        return json.dumps(data).encode()
    except (TypeError, ValueError):
        return None
