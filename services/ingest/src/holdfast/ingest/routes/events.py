"""``/v1/events``: accept events and show where they stand."""

import base64
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from flask import Blueprint, Response, current_app, g, json, request, url_for

from holdfast.domain.event import StoredEvent
from holdfast.ingest.auth import require
from holdfast.ingest.cloudevents import STRUCTURED, is_traceparent, media_type, read_event
from holdfast.ingest.connection import reconnecting
from holdfast.ingest.faults import InvalidEvent
from holdfast.ingest.problems import Problem
from holdfast.ingest.record import Outcome
from holdfast.runtime.ids import uuid7
from holdfast.runtime.telemetry import Metrics
from holdfast.storage import events
from holdfast.storage.events import EventView, TimelineEntry

__all__ = ["blueprint"]

blueprint = Blueprint("events", __name__)

INCLUDES = frozenset({"data", "timeline"})


@blueprint.post("/v1/events")
def accept() -> Response:
    """Record one CloudEvent; see docs/http-api.md for the answers."""
    g.outcome = "failed"
    with Metrics.ingest_seconds.time():
        try:
            return _accept()
        finally:
            # Problems are turned into answers further out, where the outcome is their code.
            g.is_event_post = True


def _accept() -> Response:
    holder = require("events:write")
    body = _body()
    try:
        event = read_event(dict(request.headers), body, event_id=uuid7(), tenant=holder.tenant)
    except InvalidEvent as exc:
        errors = [fault.as_dict() for fault in exc.faults]
        raise Problem(400, errors[0]["code"], str(exc), errors=errors) from exc
    outcome = current_app.extensions["holdfast"].recorder.record(event, traceparent=_traceparent())
    if outcome.recorded.is_conflict:
        raise Problem(
            422, "id_conflict",
            f"source {event.source!r} has sent the id {event.ce_id!r} with other data or another type; use a new id",
        )  # fmt: skip
    g.outcome = "duplicate" if outcome.recorded.is_duplicate else "accepted"
    return _accepted(event.ce_id, event.source, outcome)


def _traceparent() -> str | None:
    """The trace that the request belongs to. A malformed one is ignored, as W3C trace context has it."""
    given = request.headers.get("traceparent", "")
    return given if is_traceparent(given) else None


def _body() -> bytes:
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem(415, "unsupported_encoding", "send the body without Content-Encoding")
    kind = media_type(request.headers.get("Content-Type", ""))
    if kind == "application/cloudevents-batch+json":
        raise Problem(415, "unsupported_format", "batches are not offered yet; send one event a request")
    if kind.startswith("application/cloudevents") and kind != STRUCTURED:
        raise Problem(415, "unsupported_format", f"structured events are {STRUCTURED}")
    limit: int = current_app.extensions["holdfast"].settings.max_event_bytes
    body = request.get_data(cache=False)
    # Werkzeug cuts a chunked body off at MAX_CONTENT_LENGTH without a word, so that is one byte above the limit.
    if len(body) > limit:
        raise Problem(413, "too_large", f"an event has at most {limit} bytes; send a reference to large data")
    return body


def _accepted(ce_id: str, source: str, outcome: Outcome) -> Response:
    update = outcome.recorded.update
    address = url_for("events.show", event_id=update.event_id)
    body = {
        "id": ce_id,
        "source": source,
        "event_id": str(update.event_id),
        "state": update.state,
        "version": update.version,
        "duplicate": outcome.recorded.is_duplicate,
        "enqueued": outcome.is_enqueued,
        "links": {"self": address, "topic": f"event:{update.event_id}"},
    }
    return Response(json.dumps(body), 202, {"Location": address}, content_type="application/json")


@blueprint.get("/v1/events/<event_id>")
def show(event_id: str) -> Response:
    """One event: its attributes, where it stands, and on request its data and timeline."""
    holder = require("events:read")
    wanted = _includes()
    identifier = _uuid(event_id)
    found = reconnecting(lambda: _find(identifier, holder.tenant, "timeline" in wanted)) if identifier else None
    if found is None:
        raise Problem(404, "not_found", "there is no such event; the id is the event_id from the 202 answer")
    return Response(json.dumps(_view(*found, with_data="data" in wanted)), content_type="application/json")


def _find(event_id: UUID, tenant: str, with_history: bool) -> tuple[EventView, list[TimelineEntry] | None] | None:
    with current_app.extensions["holdfast"].database.transaction() as session:
        view = events.find(session, event_id=event_id, tenant=tenant)
        if view is None:
            return None
        return view, events.timeline(session, event_id=event_id) if with_history else None


def _includes() -> set[str]:
    wanted = {name for name in request.args.get("include", "").split(",") if name}
    if unknown := wanted - INCLUDES:
        raise Problem(
            400, "unknown_include", f"include takes {', '.join(sorted(INCLUDES))}, not {', '.join(sorted(unknown))}"
        )
    return wanted


def _view(view: EventView, history: list[TimelineEntry] | None, *, with_data: bool) -> dict[str, Any]:
    body = {
        "event_id": str(view.event.id),
        "event": _envelope(view.event, with_data=with_data),
        "state": view.state,
        "version": view.version,
        "attempt": view.attempt,
        "received_at": _rfc3339(view.event.received_at),
        "available_at": _rfc3339(view.available_at),
        "finished_at": _rfc3339(view.finished_at),
        "last_error": view.last_error and {name: view.last_error.get(name) for name in ("type", "message", "handler")},
        "links": {"self": url_for("events.show", event_id=view.event.id), "topic": f"event:{view.event.id}"},
    }
    if history is not None:
        body["timeline"] = [
            {"version": entry.version, "state": entry.state, "attempt": entry.attempt, "at": _rfc3339(entry.at),
             "detail": entry.detail}
            for entry in history
        ]  # fmt: skip
    return body


def _envelope(event: StoredEvent, *, with_data: bool) -> dict[str, Any]:
    """The event in the JSON event format, as it was sent."""
    attributes = {
        "specversion": "1.0",
        "id": event.ce_id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": _rfc3339(event.time),
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


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _rfc3339(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment else None
