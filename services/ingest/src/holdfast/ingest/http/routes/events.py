"""``POST /v1/events``: accept events."""

from flask import Blueprint, Response, g, json, request

from holdfast.ingest.http.auth import require
from holdfast.ingest.http.bodies import body_bytes
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.problems import Problem
from holdfast.ingest.http.views import address_of, links
from holdfast.ingest.intake.cloudevents import STRUCTURED, media_type, read_event
from holdfast.ingest.intake.faults import InvalidEvent
from holdfast.ingest.intake.record import Outcome
from holdfast.runtime.ids import uuid7
from holdfast.runtime.telemetry import Metrics

__all__ = ["blueprint"]

blueprint = Blueprint("events", __name__)


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
    parts().backpressure.check()
    body = _body()
    try:
        event = read_event(dict(request.headers), body, event_id=uuid7(), tenant=holder.tenant)
    except InvalidEvent as exc:
        errors = [fault.as_dict() for fault in exc.faults]
        raise Problem(400, errors[0]["code"], str(exc), errors=errors) from exc
    outcome = parts().recorder.record(event)
    if outcome.recorded.is_conflict:
        raise Problem(
            422, "id_conflict",
            f"source {event.source!r} has sent the id {event.ce_id!r} with other data or another type; use a new id",
        )  # fmt: skip
    g.outcome = "duplicate" if outcome.recorded.is_duplicate else "accepted"
    return _accepted(event.ce_id, event.source, outcome)


def _body() -> bytes:
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem(415, "unsupported_encoding", "send the body without Content-Encoding")
    kind = media_type(request.headers.get("Content-Type", ""))
    if kind == "application/cloudevents-batch+json":
        raise Problem(415, "unsupported_format", "batches are not offered yet; send one event a request")
    if kind.startswith("application/cloudevents") and kind != STRUCTURED:
        raise Problem(415, "unsupported_format", f"structured events are {STRUCTURED}")
    return body_bytes()


def _accepted(ce_id: str, source: str, outcome: Outcome) -> Response:
    update = outcome.recorded.update
    address = address_of(update.event_id)
    body = {
        "id": ce_id,
        "source": source,
        "event_id": str(update.event_id),
        "state": update.state,
        "version": update.version,
        "duplicate": outcome.recorded.is_duplicate,
        "enqueued": outcome.is_enqueued,
        "links": links(update.event_id),
    }
    return Response(json.dumps(body), 202, {"Location": address}, content_type="application/json")
