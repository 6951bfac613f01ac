"""``/v1/pauses``: what is not to be begun until somebody resumes it."""

from typing import Annotated, Any

from flask import Blueprint, Response, json
from pydantic import BaseModel, ConfigDict, Field

from holdfast.domain.names import is_text
from holdfast.domain.pauses import MAX_NOTE_LENGTH, NAME_RULES, Paused, PauseKind, is_pausable
from holdfast.ingest.http.acting import actor_of
from holdfast.ingest.http.auth import require
from holdfast.ingest.http.bodies import MAX_RECEIVED_CHARACTERS, read_body, refuse_body
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.problems import Problem
from holdfast.ingest.http.views import identifier, missing, rfc3339
from holdfast.ingest.operate import pauser
from holdfast.ingest.operate.pauser import ForAdministrators
from holdfast.storage.keys import KeyHolder
from holdfast.storage.pauses import MOST_OF_TENANT, MOST_PAUSES, TooManyPauses

__all__ = ["PauseRequest", "blueprint", "pause_view"]

blueprint = Blueprint("pauses", __name__)

EXAMPLE = '{"kind": "handler", "name": "charge-order", "note": "the bank is away"}'

NAME = "pause that concerns your tenant; GET /v1/pauses lists them, and one that was resumed is gone"

KINDS = "handler, type, tenant or pool"


class PauseRequest(BaseModel):
    """Body of ``POST /v1/pauses``."""

    model_config = ConfigDict(extra="forbid")

    kind: PauseKind = Field(description=KINDS)
    name: str
    note: Annotated[str, Field(max_length=MAX_NOTE_LENGTH)] | None = None


@blueprint.get("/v1/pauses")
def list_() -> Response:
    """Pauses that concern the key's tenant, the newest first: its own, and those of handlers and pools."""
    holder = require("operate")
    return _json({"items": [pause_view(each) for each in pauser.list_pauses(parts().database, holder.tenant)]})


@blueprint.get("/v1/pauses/<pause_id>")
def show(pause_id: str) -> Response:
    """One pause."""
    holder = require("operate")
    return _shown(pauser.find_pause(parts().database, identifier(pause_id, NAME), holder.tenant))


@blueprint.post("/v1/pauses")
def pause() -> Response:
    """Begin nothing more of it. What is paused already stays as it is."""
    holder = require("operate")
    wanted = _wanted(holder)
    try:
        paused, is_new = pauser.pause(
            parts().database, actor_of(holder), wanted.kind, wanted.name, note=wanted.note or None,
            is_admin=_is_admin(holder),
        )  # fmt: skip
    except ForAdministrators:
        raise _for_administrators() from None
    except TooManyPauses as exc:
        detail = f"a tenant has at most {MOST_OF_TENANT} pauses, and there are at most {MOST_PAUSES}; resume one first"
        raise Problem(409, "too_many_pauses", detail) from exc
    return _json(pause_view(paused), 201 if is_new else 200, {"Location": _address(paused)})


@blueprint.delete("/v1/pauses/<pause_id>")
def resume(pause_id: str) -> Response:
    """Let it go on. Answers with what the pause was."""
    holder = require("operate")
    refuse_body()
    known = identifier(pause_id, NAME)
    try:
        return _shown(pauser.resume(parts().database, actor_of(holder), known, is_admin=_is_admin(holder)))
    except ForAdministrators:
        raise _for_administrators() from None


def pause_view(paused: Paused) -> dict[str, Any]:
    """A pause as a JSON value."""
    return {
        "pause_id": str(paused.id), "kind": paused.kind, "name": paused.name, "tenant": paused.tenant,
        "note": paused.note, "paused_by": paused.paused_by, "paused_at": rfc3339(paused.paused_at),
        "links": {"self": _address(paused)},
    }  # fmt: skip


def _wanted(holder: KeyHolder) -> PauseRequest:
    """What is asked for, checked.

    Raises:
        Problem: 400 with every fault, 413.
    """
    wanted = read_body(PauseRequest, EXAMPLE)
    faults = []
    if not is_pausable(wanted.kind, wanted.name) or (wanted.kind is PauseKind.TENANT and wanted.name != holder.tenant):
        faults.append(("name", f"takes {NAME_RULES[wanted.kind]}", wanted.name))
    if wanted.note is not None and not is_text(wanted.note):
        faults.append(
            ("note", f"takes at most {MAX_NOTE_LENGTH} characters, none of them a control character", wanted.note)
        )
    if faults:
        errors = [
            {
                "pointer": f"/{field}", "code": "invalid_value", "detail": detail,
                "received": repr(received)[:MAX_RECEIVED_CHARACTERS],
            }
            for field, detail, received in faults
        ]  # fmt: skip
        raise Problem(400, "invalid_request", f"send {EXAMPLE}", errors=errors)
    return wanted


def _is_admin(holder: KeyHolder) -> bool:
    return "admin" in holder.scopes


def _for_administrators() -> Problem:
    detail = (
        "handlers and pools work for all tenants, so pausing them takes the scope admin; pause a type or your tenant"
    )
    return Problem(403, "forbidden", detail)


def _shown(paused: Paused | None) -> Response:
    if paused is None:
        raise missing(NAME)
    return _json(pause_view(paused))


def _address(paused: Paused) -> str:
    return f"/v1/pauses/{paused.id}"


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(body), status, headers, content_type="application/json")
