"""``/v1/events/{id}/replay``, ``/discard`` and ``/cancel``: what an operator does to one event."""

import re
from uuid import uuid4

from flask import Blueprint, Response, json, request

from holdfast.domain.state import State
from holdfast.domain.update import Update
from holdfast.ingest.http.acting import acting
from holdfast.ingest.http.bodies import edited_data, refuse_body
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.problems import Problem
from holdfast.ingest.http.views import address_of, identifier, links, missing
from holdfast.ingest.operate.operator import Done, Operator
from holdfast.storage.operate import Acted, Outcome

__all__ = ["blueprint", "idempotency_key", "idempotency_key_of"]

blueprint = Blueprint("operate", __name__)

_REFUSED = frozenset({Outcome.KEY_REUSED, Outcome.NOT_EDITABLE, Outcome.NOT_ALLOWED, Outcome.CHANGING})

_KEY = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


@blueprint.post("/v1/events/<event_id>/replay")
def replay(event_id: str) -> Response:
    """Queue a dead or discarded event again, or record a new one like a processed one."""
    actor, data_json = acting("operate"), edited_data()
    done = _operator().replay(actor, identifier(event_id), idempotency_key=idempotency_key(), data_json=data_json)
    return _answer(done, "replayed", "it is going to run anyway")


@blueprint.post("/v1/events/<event_id>/discard")
def discard(event_id: str) -> Response:
    """Discard an event that is queued, failed or dead."""
    actor = acting("operate")
    refuse_body()
    done = _operator().discard(actor, identifier(event_id), idempotency_key=idempotency_key())
    return _answer(done, "discarded", "there is nothing left to give up")


@blueprint.post("/v1/events/<event_id>/cancel")
def cancel(event_id: str) -> Response:
    """Have an event ended that runs, or discard one that waits to run."""
    actor = acting("operate")
    refuse_body()
    done = _operator().cancel(actor, identifier(event_id), idempotency_key=idempotency_key())
    return _answer(done, "cancelled", "it has ended; a dead one can be discarded")


def idempotency_key() -> str:
    """The ``Idempotency-Key``: the same request with it again does nothing more. Without one each request stands alone.

    Raises:
        Problem: 400 for a key with other characters, or more of them.
    """
    key = request.headers.get("Idempotency-Key")
    return uuid4().hex if key is None else idempotency_key_of(key)


def idempotency_key_of(key: str) -> str:
    """The key, if it is one.

    Raises:
        Problem: 400.
    """
    if _KEY.fullmatch(key) is None:
        detail = "an Idempotency-Key is 1 to 64 letters, digits, dots, dashes and underscores; a UUID does"
        raise Problem(400, "invalid_idempotency_key", detail)
    return key


def _operator() -> Operator:
    operator: Operator = parts().operator
    return operator


def _answer(done: Done | None, verb: str, why_not: str) -> Response:
    if done is None:
        raise missing()
    if done.acted.outcome in _REFUSED or done.acted.update is None:
        raise _refusal(done.acted, verb, why_not)
    return _accepted(
        done.acted.update, is_repeated=done.acted.outcome is Outcome.REPEATED, is_enqueued=done.is_enqueued
    )


def _refusal(acted: Acted, verb: str, why_not: str) -> Problem:
    state = acted.state
    if acted.outcome is Outcome.KEY_REUSED:
        return Problem(422, "id_conflict", "this Idempotency-Key was used with other data; use a new one")
    if acted.outcome is Outcome.NOT_EDITABLE:
        detail = f"a {state} event is replayed as it was sent; discard it and send a corrected one with a new id"
        return Problem(422, "not_editable", detail)
    if acted.outcome is Outcome.CHANGING:
        return Problem(409, "event_changing", "the event keeps changing; look at it and send the request again")
    reason = "wait until its attempt has ended, or cancel it" if state is State.PROCESSING else why_not
    return Problem(409, f"event_{state}", f"a {state} event cannot be {verb}: {reason}")


def _accepted(update: Update, *, is_repeated: bool, is_enqueued: bool) -> Response:
    body = {
        "event_id": str(update.event_id),
        "state": update.state,
        "version": update.version,
        "duplicate": is_repeated,
        "enqueued": is_enqueued,
        "links": links(update.event_id),
    }
    return Response(json.dumps(body), 202, {"Location": address_of(update.event_id)}, content_type="application/json")
