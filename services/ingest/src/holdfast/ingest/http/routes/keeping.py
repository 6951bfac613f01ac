"""``/v1/retention`` and ``/v1/erasures``: how long events are kept, and erasing what has a subject, or everything."""

from typing import Any, Self
from uuid import UUID

from flask import Blueprint, Response, json
from pydantic import BaseModel, ConfigDict, Field, model_validator

from holdfast.domain.retention import MAX_DAYS, RULED, RetentionRule
from holdfast.domain.state import State
from holdfast.ingest.http.acting import acting
from holdfast.ingest.http.auth import require
from holdfast.ingest.http.bodies import (
    MAX_RECEIVED_CHARACTERS,
    Page,
    read_arguments,
    read_body,
    refuse_body,
)
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.problems import Problem
from holdfast.ingest.http.routes.operate import idempotency_key
from holdfast.ingest.http.views import identifier, missing, rfc3339
from holdfast.ingest.operate.keeper import Keeper
from holdfast.storage.erasures import Erasure
from holdfast.storage.retention import Retention

__all__ = ["ErasureList", "ErasureRequest", "RetentionRequest", "blueprint"]

blueprint = Blueprint("keeping", __name__)

RULE_EXAMPLE = '{"days": 30}'

ERASURE_EXAMPLE = '{"subject": "user-42"}, or {"everything": true} for all events of your tenant'

RULE_NAME = "rule of your tenant for this state; GET /v1/retention shows what is in force"

ERASURE_NAME = "erasure of your tenant; the id is the one from the 202 answer to POST /v1/erasures"

MAX_SUBJECT_CHARACTERS = 1024
"""As long as an event's own."""


class RetentionRequest(BaseModel):
    """Body of ``PUT /v1/retention/{state}``. ``days`` is ``null`` to keep them for ever."""

    model_config = ConfigDict(extra="forbid")

    days: int | None = Field(ge=1, le=MAX_DAYS)


class ErasureRequest(BaseModel):
    """Body of ``POST /v1/erasures``: either of the two. ``null`` is refused, so that a subject which somebody failed to fill
    in never becomes everything.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    subject: str = Field(default="", min_length=1, max_length=MAX_SUBJECT_CHARACTERS, pattern="^[^\x00]*$")
    everything: bool = False

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        """Exactly one of them says what is meant."""
        given = self.model_fields_set
        if given == {"subject"} or (given == {"everything"} and self.everything):
            return self
        received = "both" if len(given) > 1 else "everything: false" if given else "neither"
        raise ValueError(f"received {received}; send either subject, or everything with the value true")


class ErasureList(Page):
    """Query string of ``GET /v1/erasures``."""

    cursor: UUID | None = None


@blueprint.get("/v1/retention")
def retention() -> Response:
    """How long the tenant's events are kept, by the state in which they ended."""
    return _shown(_keeper().retention(tenant=require("operate").tenant))


@blueprint.put("/v1/retention/<state>")
def put_rule(state: str) -> Response:
    """Make the tenant's rule for a state, or change it."""
    actor = acting("admin")
    wanted = read_body(RetentionRequest, RULE_EXAMPLE)
    return _shown(_keeper().put_rule(actor, RetentionRule(_state(state), wanted.days)))


@blueprint.delete("/v1/retention/<state>")
def remove_rule(state: str) -> Response:
    """Go by the deployment's default again."""
    actor = acting("admin")
    refuse_body()
    shown = _keeper().remove_rule(actor, _state(state))
    if shown is None:
        raise missing(RULE_NAME)
    return _shown(shown)


@blueprint.post("/v1/erasures")
def erase() -> Response:
    """Begin to erase what the tenant has of a subject, or everything."""
    actor = acting("admin")
    wanted = read_body(ErasureRequest, ERASURE_EXAMPLE)
    begun = _keeper().erase(actor, None if wanted.everything else wanted.subject, idempotency_key=idempotency_key())
    if not isinstance(begun, Erasure):
        detail = "this Idempotency-Key belongs to an erasure of something else; use a new one for another request"
        raise Problem(422, "id_conflict", detail)
    return _json(_erasure_view(begun), 202, {"Location": _address(begun.id)})


@blueprint.get("/v1/erasures")
def erasures() -> Response:
    """Erasures of the key's tenant, newest first."""
    holder, wanted = require("admin"), read_arguments(ErasureList)
    page = _keeper().erasures(tenant=holder.tenant, limit=wanted.limit, before_id=wanted.cursor)
    items = [_erasure_view(each) for each in page.items]
    return _json({"items": items, "next_cursor": page.next_id and str(page.next_id)})


@blueprint.get("/v1/erasures/<erasure_id>")
def erasure(erasure_id: str) -> Response:
    """How far an erasure is."""
    holder = require("admin")
    found = _keeper().find_erasure(identifier(erasure_id, ERASURE_NAME), tenant=holder.tenant)
    if found is None:
        raise missing(ERASURE_NAME)
    return _json(_erasure_view(found))


def _erasure_view(found: Erasure) -> dict[str, Any]:
    """An erasure as a JSON value."""
    return {
        "erasure_id": str(found.id),
        "everything": found.is_everything,
        "subject_sha256": found.subject_sha256,
        "state": found.state,
        "erased": found.erased,
        "waiting": found.waiting,
        "remains": found.remains,
        "created_by": found.created_by,
        "created_by_name": found.created_by_name,
        "created_at": rfc3339(found.created_at),
        "finished_at": rfc3339(found.finished_at),
        "failures": found.failures,
        "last_error": found.last_error,
        "links": {"self": _address(found.id)},
    }


def _retention_view(found: Retention) -> dict[str, Any]:
    rule = None if found.rule is None else {"days": found.rule.days}
    return {
        "state": found.state,
        "rule": rule,
        "changed_by": found.changed_by,
        "changed_at": rfc3339(found.changed_at),
        "days_in_force": found.days,
        "dropped": found.dropped,
        "last_walk_at": rfc3339(found.ended_at),
    }


def _state(text: str) -> State:
    if text not in RULED:
        states = ", ".join(sorted(RULED))
        detail = f"a rule is for one of {states}; received {text[:MAX_RECEIVED_CHARACTERS]!r}. Open events never go"
        raise Problem(400, "invalid_state", detail)
    return State(text)


def _shown(found: list[Retention]) -> Response:
    return _json({"items": [_retention_view(each) for each in found]})


def _address(erasure_id: UUID) -> str:
    return f"/v1/erasures/{erasure_id}"


def _keeper() -> Keeper:
    return Keeper(parts().database)


def _json(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(body), status, headers, content_type="application/json")
