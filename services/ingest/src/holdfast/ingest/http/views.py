"""What answers look like: events, timelines and attempts as JSON values."""

import base64
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from flask import url_for

from holdfast.domain.event import StoredEvent
from holdfast.ingest.http.problems import Problem
from holdfast.storage.events import EventView, TimelineEntry
from holdfast.storage.listing import Attempt

__all__ = [
    "address_of",
    "attempt_view",
    "event_view",
    "identifier",
    "links",
    "missing",
    "rfc3339",
    "timeline_view",
]


def address_of(event_id: UUID) -> str:
    """The path of an event."""
    return url_for("lists.show", event_id=event_id)


def links(event_id: UUID) -> dict[str, str]:
    """Where an event is, and the topic that tells what becomes of it."""
    return {"self": address_of(event_id), "topic": f"event:{event_id}"}


EVENT = "event; the id is the event_id from the 202 answer"


def identifier(text: str, what: str = EVENT) -> UUID:
    """The id in a path.

    Raises:
        Problem: 404 for what is no UUID: there can be nothing of that name.
    """
    try:
        return UUID(text)
    except ValueError:
        raise missing(what) from None


def missing(what: str = EVENT) -> Problem:
    """404, the same for what never was and for what is another tenant's."""
    return Problem(404, "not_found", f"there is no such {what}")


def event_view(view: EventView, *, with_data: bool = False, is_operator: bool) -> dict[str, Any]:
    """An event and where it stands. An operator also sees what an error's own text says."""
    return {
        "event_id": str(view.event.id),
        "event": _envelope(view.event, with_data=with_data),
        "state": view.state,
        "version": view.version,
        "attempt": view.attempt,
        "received_at": rfc3339(view.event.received_at),
        "available_at": rfc3339(view.available_at),
        "finished_at": rfc3339(view.finished_at),
        "last_error": view.last_error and _last_error(view.last_error, is_operator),
        "replay_of": str(view.replay_of) if view.replay_of else None,
        "links": links(view.event.id),
    }


def _last_error(error: dict[str, Any], is_operator: bool) -> dict[str, Any]:
    message = error.get("message" if is_operator else "reason")
    return {"type": error.get("type"), "message": message, "handler": error.get("handler")}


def timeline_view(entry: TimelineEntry) -> dict[str, Any]:
    """One transition."""
    return {
        "version": entry.version,
        "state": entry.state,
        "attempt": entry.attempt,
        "at": rfc3339(entry.at),
        "detail": entry.detail,
    }


def attempt_view(attempt: Attempt, *, trace_id: str | None, is_operator: bool) -> dict[str, Any]:
    """One attempt. An error's own text and its traceback may quote what the handler worked with: they are for operators."""
    error = {
        "type": attempt.error_type,
        "message": attempt.message if is_operator else attempt.reason,
        "fingerprint": attempt.fingerprint,
        "traceback": attempt.traceback if is_operator else None,
    }
    return {
        "attempt": attempt.attempt,
        "outcome": "failed" if attempt.error_type else "processed",
        "handler": attempt.handler,
        "error": error if attempt.error_type else None,
        "worker": attempt.worker,
        "duration_ms": attempt.duration_ms,
        "at": rfc3339(attempt.at),
        "trace_id": trace_id,
    }


def rfc3339(moment: datetime | None) -> str | None:
    """UTC, with a ``Z``."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment else None


def _envelope(event: StoredEvent, *, with_data: bool) -> dict[str, Any]:
    """The event in the JSON event format, as it was sent."""
    attributes = {
        "specversion": "1.0",
        "id": event.ce_id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": rfc3339(event.time),
        "datacontenttype": event.datacontenttype,
        "dataschema": event.dataschema,
        "audience": event.audience,
        "traceparent": event.traceparent,
        **event.extensions,
    }
    envelope = {name: value for name, value in attributes.items() if value is not None}
    if with_data and isinstance(event.data, bytes):
        envelope["data_base64"] = base64.b64encode(event.data).decode()
    elif with_data:
        envelope["data"] = event.data
    return envelope
