"""What answers look like: events, timelines and attempts as JSON values."""

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from flask import json

from holdfast.domain.data import Data
from holdfast.domain.event import StoredEvent
from holdfast.domain.waiting import Waiting
from holdfast.ingest.http.problems import Problem
from holdfast.storage.event_views import EventView, TimelineEntry
from holdfast.storage.groups import Group
from holdfast.storage.listing import Attempt
from holdfast.storage.recorded import Recorded
from holdfast.storage.steps import Step

__all__ = [
    "address_of",
    "attempt_view",
    "content_type_of",
    "event_view",
    "group_view",
    "identifier",
    "links",
    "missing",
    "rfc3339",
    "step_view",
    "timeline_view",
    "unique_until",
    "waiting_facts",
    "waiting_view",
    "with_data_spliced",
    "with_member",
]


_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE = re.compile(rf'{_WORD}/{_WORD}(?:[ \t]*;[ \t]*{_WORD}=(?:{_WORD}|"[ !#-\[\]-~]*"))*', re.ASCII)
"""RFC 9110, section 8.3.1, with quoted values without escapes."""


def content_type_of(data: Data) -> str:
    """The Content-Type under which an event's data goes out: the sender's own where it is one."""
    if data.content_type is None:
        return "application/json" if data.is_json else "application/octet-stream"
    return data.content_type if _MEDIA_TYPE.fullmatch(data.content_type) else "application/octet-stream"


def address_of(event_id: UUID | str) -> str:
    """The path of an event. Not asked of the router, which takes longer than all the rest of an answer."""
    return f"/v1/events/{event_id}"


def unique_until(recorded: Recorded) -> dict[str, Any]:
    """Until when an event is a duplicate by its key, of another one that has the ``event_id``."""
    until = recorded.unique_until
    return {} if until is None else {"unique_until": rfc3339(until)}


def links(event_id: UUID | str) -> dict[str, str]:
    """Where an event is, and the topic that tells what becomes of it."""
    return {"self": address_of(event_id), "topic": f"event:{event_id}"}


FOR_OPERATORS = frozenset({"node", "nodes", "host"})
"""Facts that name machines."""

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
    """An event and where it stands. An operator also sees what an error's own text says.

    ``with_data``: with data that is no JSON; that which is JSON is put in by :func:`with_data_spliced`.
    """
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
        "replay_of": str(view.event.replay_of) if view.event.replay_of else None,
        "parent_id": str(view.event.parent_id) if view.event.parent_id else None,
        "request_id": view.event.origin.request_id,
        "trace_id": view.event.origin.trace_id,
        "links": links(view.event.id),
    }


def _last_error(error: dict[str, Any], is_operator: bool) -> dict[str, Any]:
    message = error.get("message" if is_operator else "reason")
    return {"type": error.get("type"), "message": message, "handler": error.get("handler")}


def group_view(group: Group) -> dict[str, Any]:
    """One group of events that a handler made."""
    return {
        "group_id": str(group.id),
        "type": group.type,
        "size": group.size,
        "open": group.open,
        "processed": group.processed,
        "dead": group.dead,
        "discarded": group.discarded,
        "created_at": rfc3339(group.created_at),
        "completed_at": rfc3339(group.completed_at),
    }


def step_view(step: Step, *, is_operator: bool) -> dict[str, Any]:
    """One step of a handler. Its result was not written for clients: it is for operators."""
    shown = {
        "name": step.name,
        "handler": step.handler,
        "attempt": step.attempt,
        "stored_at": rfc3339(step.stored_at),
        "duration_ms": step.duration_ms,
        "wake_at": rfc3339(step.wake_at),
    }
    if is_operator and step.result is not None:
        shown["result"] = json.loads(step.result)
    return shown


def timeline_view(entry: TimelineEntry) -> dict[str, Any]:
    """One transition."""
    return {
        "version": entry.version,
        "state": entry.state,
        "attempt": entry.attempt,
        "at": rfc3339(entry.at),
        "detail": entry.detail,
    }


def waiting_view(waiting: Waiting, *, is_operator: bool) -> dict[str, Any]:
    """Why an event waits: ``reason``, ``summary`` and the facts of that reason."""
    facts = waiting_facts(waiting, is_operator=is_operator)
    return {"reason": waiting.reason, "summary": waiting.summary, **_json_of(facts)}


def waiting_facts(waiting: Waiting, *, is_operator: bool) -> dict[str, Any]:
    """What is told of the facts behind a reason: the names of machines are for operators."""
    return {name: value for name, value in waiting.facts.items() if is_operator or name not in FOR_OPERATORS}


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


def _json_of(value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Mapping):
        return {name: _json_of(each) for name, each in value.items()}
    return value


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
    if with_data and event.content is not None and not event.is_json:
        envelope["data_base64"] = base64.b64encode(event.content).decode()
    return envelope


def with_data_spliced(body: dict[str, Any], event: StoredEvent) -> bytes:
    """The JSON of :func:`event_view` with the event's data in it as it was sent: numbers, order of names, escapes and all."""
    if not event.is_json or event.content is None:
        return json.dumps(body).encode()
    envelope = with_member(body["event"], "data", event.content)
    return with_member({name: value for name, value in body.items() if name != "event"}, "event", envelope)


def with_member(members: dict[str, Any], name: str, text: bytes) -> bytes:
    """The JSON of an object, which is not empty, with one more member whose JSON text is known."""
    return json.dumps(members).encode()[:-1] + f', "{name}": '.encode() + text + b"}"
