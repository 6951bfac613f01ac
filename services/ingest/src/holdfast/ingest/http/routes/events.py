"""``POST /v1/events``: accept an event, or a batch."""

from typing import Any

import msgspec
from flask import Blueprint, Response, g, request

from holdfast.domain.data import media_type
from holdfast.domain.event import NewEvent
from holdfast.ingest.http.auth import require
from holdfast.ingest.http.bodies import body_bytes
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.problems import Problem
from holdfast.ingest.http.tracing import sending
from holdfast.ingest.http.traffic import note_events
from holdfast.ingest.http.views import links, unique_until
from holdfast.ingest.intake.batch import MAX_FAULTS, BatchTooLarge, InvalidBatch, read_batch
from holdfast.ingest.intake.cloudevents import BATCH, STRUCTURED, read_event
from holdfast.ingest.intake.faults import InvalidEvent
from holdfast.ingest.intake.record import ConflictInBatch, Outcome
from holdfast.runtime.ids import uuid7
from holdfast.runtime.telemetry import Metrics

__all__ = ["blueprint"]

blueprint = Blueprint("events", __name__)

_encode = msgspec.json.Encoder().encode


@blueprint.post("/v1/events")
def accept() -> Response:
    """Record CloudEvents; see docs/http-api.md for the answers."""
    g.outcome = "failed"
    with Metrics.ingest_seconds.time():
        try:
            return _accept()
        finally:
            # Problems are turned into answers further out, where the outcome is their code.
            g.is_event_post = True


def _accept() -> Response:
    holder = require("events:write")
    parts().backpressure.check(holder.tenant)
    kind = media_type(request.headers.get("Content-Type", ""))
    _check_format(kind)
    return _accept_batch(holder.tenant) if kind == BATCH else _accept_one(holder.tenant)


def _accept_one(tenant: str) -> Response:
    try:
        event = read_event(dict(request.headers), body_bytes(), event_id=uuid7(), tenant=tenant)
    except InvalidEvent as exc:
        raise _invalid(exc, [fault.as_dict() for fault in exc.faults]) from exc
    with sending([event]) as sent:
        outcome = parts().recorder.record(*sent.events)
        sent.sent(outcome)
    if outcome.recorded.is_conflict:
        raise Problem(
            422, "id_conflict",
            f"source {event.source!r} has sent the id {event.ce_id!r} with other data or another type; use a new id",
        )  # fmt: skip
    g.outcome = "duplicate" if outcome.recorded.is_duplicate else "accepted"
    note_events(sent.events, [outcome])
    body = _answer(event, outcome)
    return _accepted(body, {"Location": body["links"]["self"]})


def _accept_batch(tenant: str) -> Response:
    """All events of a batch, or none."""
    try:
        batch = read_batch(
            body_bytes(is_batch=True), new_id=uuid7, tenant=tenant, most_bytes=parts().settings.max_event_bytes
        )
        with sending(batch) as sent:
            outcomes = parts().recorder.record_batch(sent.events)
            if outcomes:
                sent.sent(outcomes[0])
    except InvalidEvent as exc:
        raise _invalid(exc, [fault.as_dict() for fault in exc.faults]) from exc
    except InvalidBatch as exc:
        raise _invalid(exc, [{"index": index} | fault.as_dict() for index, fault in exc.faults]) from exc
    except BatchTooLarge as exc:
        raise Problem(413, "too_many_events", str(exc)) from exc
    except ConflictInBatch as exc:
        raise _conflict(exc.indexes) from exc
    duplicates = sum(outcome.recorded.is_duplicate for outcome in outcomes)
    g.outcome = "duplicate" if outcomes and duplicates == len(outcomes) else "accepted"
    note_events(sent.events, outcomes)
    return _accepted({
        "accepted": len(outcomes) - duplicates,
        "duplicates": duplicates,
        "events": [_answer(event, outcome) for event, outcome in zip(batch, outcomes, strict=True)],
    })  # fmt: skip


def _invalid(exc: Exception, errors: list[dict[str, Any]]) -> Problem:
    return Problem(400, errors[0]["code"], str(exc), errors=errors)


def _conflict(indexes: list[int]) -> Problem:
    code, detail = "id_conflict", "its source has sent its id with other data or another type; use a new id"
    errors = [{"index": index, "pointer": f"/{index}/id", "code": code, "detail": detail} for index in indexes]
    return Problem(422, code, "nothing of the batch was recorded: ids were used before", errors=errors[:MAX_FAULTS])


def _check_format(kind: str) -> None:
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem(415, "unsupported_encoding", "send the body without Content-Encoding")
    if kind.startswith("application/cloudevents") and kind not in (STRUCTURED, BATCH):
        raise Problem(415, "unsupported_format", f"structured events are {STRUCTURED}, batches of them {BATCH}")


def _answer(event: NewEvent, outcome: Outcome) -> dict[str, Any]:
    update = outcome.recorded.update
    event_id = str(update.event_id)
    return {
        "id": event.ce_id,
        "source": event.source,
        "event_id": event_id,
        "state": update.state,
        "version": update.version,
        "duplicate": outcome.recorded.is_duplicate,
        "enqueued": outcome.is_enqueued,
        **({"forgotten": True} if outcome.recorded.is_forgotten else {}),  # its rows are gone, and no address has it
        **dict(update.detail),  # when it is due, of one that was sent for later
        **unique_until(outcome.recorded),
        "links": links(event_id),
    }


def _accepted(body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(_encode(body), 202, headers, content_type="application/json")
