"""``/v1/events/{id}/replay`` and ``/discard``: what an operator does to one event."""

import re
from uuid import uuid4

from flask import Blueprint, Response, current_app, json, request

from holdfast.domain.state import State
from holdfast.ingest.http.auth import require
from holdfast.ingest.http.bodies import edited_data
from holdfast.ingest.http.problems import Problem
from holdfast.ingest.http.views import address_of, identifier, links, missing
from holdfast.ingest.operate.operator import Done, Operator
from holdfast.storage.audit import Actor

__all__ = ["blueprint", "request_key"]

blueprint = Blueprint("operate", __name__)

_KEY = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


@blueprint.post("/v1/events/<event_id>/replay")
def replay(event_id: str) -> Response:
    """Queue a dead or discarded event again, or record a new one like a processed one."""
    holder = require("operate")
    wanted, data_json = identifier(event_id), edited_data()
    actor = Actor(holder.tenant, holder.key_id)
    done = _operator().replay(
        actor, wanted, request=request_key(), data_json=data_json
    )  # fmt: skip
    if done is None:
        raise missing()
    if done.acted.update is None and data_json is not None and done.acted.state in (State.DEAD, State.DISCARDED):
        raise Problem(
            422, "not_editable",
            f"a {done.acted.state} event is replayed as it was sent; discard it and send a corrected one with a new id",
        )  # fmt: skip
    return _answer(done, "replayed", "it is going to run anyway")


@blueprint.post("/v1/events/<event_id>/discard")
def discard(event_id: str) -> Response:
    """Give an event up that is queued, failed or dead."""
    holder = require("operate")
    actor = Actor(holder.tenant, holder.key_id)
    done = _operator().discard(actor, identifier(event_id), request=request_key())
    if done is None:
        raise missing()
    return _answer(done, "discarded", "there is nothing left to give up")


def request_key() -> str:
    """The ``Idempotency-Key``: the same one again does nothing more. Without one each request is a wish of its own.

    Raises:
        Problem: 400 for a key that can not be.
    """
    given = request.headers.get("Idempotency-Key")
    if given is None:
        return uuid4().hex
    if _KEY.fullmatch(given) is None:
        detail = "an Idempotency-Key is 1 to 64 letters, digits, dots, dashes and underscores; a UUID does"
        raise Problem(400, "invalid_idempotency_key", detail)
    return given


def _operator() -> Operator:
    operator: Operator = current_app.extensions["holdfast"].operator
    return operator


def _answer(done: Done, verb: str, why_not: str) -> Response:
    acted, update = done.acted, done.acted.update
    if update is None:
        reason = "wait until its attempt has ended" if acted.state is State.PROCESSING else why_not
        raise Problem(409, f"event_{acted.state}", f"a {acted.state} event can not be {verb}: {reason}")
    if acted.is_conflict:
        raise Problem(422, "id_conflict", "this Idempotency-Key was used with other data; use a new one")
    address = address_of(update.event_id)
    body = {
        "event_id": str(update.event_id),
        "state": update.state,
        "version": update.version,
        "duplicate": acted.is_repeated,
        "enqueued": done.is_enqueued,
        "links": links(update.event_id),
    }
    return Response(json.dumps(body), 202, {"Location": address}, content_type="application/json")
