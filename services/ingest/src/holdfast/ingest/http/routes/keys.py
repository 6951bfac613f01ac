"""``/v1/keys``: the API keys of a tenant."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any, TypeVar

from flask import Blueprint, Response, json
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from holdfast.ingest.connection import reconnecting
from holdfast.ingest.http.acting import acting
from holdfast.ingest.http.auth import require
from holdfast.ingest.http.bodies import Page, read_arguments, read_body
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.problems import Problem
from holdfast.ingest.http.routes.operate import idempotency_key
from holdfast.ingest.http.views import missing, rfc3339
from holdfast.storage import Session, key_changes
from holdfast.storage.key_changes import LONGEST_OVERLAP, Made, Refusal, Refused
from holdfast.storage.keys import LONGEST_LIFE, SCOPES, KeyEntry

__all__ = [
    "DEFAULT_OVERLAP_SECONDS", "MAX_NAME_CHARACTERS", "blueprint", "KeyListRequest", "KeyRequest", "RevokeRequest",
    "RotateRequest", "key_view",
]  # fmt: skip

blueprint = Blueprint("keys", __name__)

Value = TypeVar("Value")

NAME = "key of your tenant; GET /v1/keys lists them"

DEFAULT_OVERLAP_SECONDS = 24 * 3600
"""Of a rotation: time to take the new key to wherever the old one is."""

MAX_NAME_CHARACTERS = 100

_KEY_ID = r"[a-z0-9]{12}"


def _printable(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise ValueError("is empty, or has control characters or line breaks")
    return text


def _scope(text: str) -> str:
    if text not in SCOPES:
        raise ValueError(f"is no scope; there are {', '.join(SCOPES)}")
    return text


class KeyListRequest(Page):
    """Query string of ``GET /v1/keys``."""

    cursor: Annotated[str, StringConstraints(pattern=f"^{_KEY_ID}$")] | None = None


class KeyRequest(BaseModel):
    """Body of ``POST /v1/keys``."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME_CHARACTERS), AfterValidator(_printable)]
    scopes: list[Annotated[str, AfterValidator(_scope)]] = Field(
        default=list(SCOPES[:2]), min_length=1, max_length=len(SCOPES),
        description=f"one or several of {', '.join(SCOPES)}",
    )  # fmt: skip
    expires_in_seconds: int | None = Field(
        default=None, ge=1, le=int(LONGEST_LIFE.total_seconds()),
        description=f"whole seconds, up to {LONGEST_LIFE.days} days; left out: it does not expire",
    )  # fmt: skip


class RotateRequest(BaseModel):
    """Body of ``POST /v1/keys/{id}/rotate``."""

    model_config = ConfigDict(extra="forbid")

    overlap_seconds: int = Field(
        default=DEFAULT_OVERLAP_SECONDS, ge=0, le=int(LONGEST_OVERLAP.total_seconds()),
        description=f"whole seconds from 0, up to {LONGEST_OVERLAP.days} days",
    )  # fmt: skip


class RevokeRequest(BaseModel):
    """Body of ``POST /v1/keys/{id}/revoke``."""

    model_config = ConfigDict(extra="forbid")

    force: bool = False


@blueprint.get("/v1/keys")
def list_() -> Response:
    """The keys of the caller's tenant, the newest first."""
    holder = require("admin")
    wanted = read_arguments(KeyListRequest)
    page = _do(
        lambda session: key_changes.key_page(session, tenant=holder.tenant, limit=wanted.limit, after_id=wanted.cursor)
    )
    return _json({"items": [key_view(entry) for entry in page.items], "next_cursor": page.next_id}, 200)


@blueprint.get("/v1/keys/<key_id>")
def show(key_id: str) -> Response:
    """One key."""
    holder, wanted = require("admin"), _identifier(key_id)
    entry = _do(lambda session: key_changes.find_entry(session, wanted, tenant=holder.tenant))
    if entry is None:
        raise missing(NAME)
    return _json(key_view(entry), 200)


@blueprint.post("/v1/keys")
def create() -> Response:
    """Make a key, and answer with the whole of it, once."""
    actor = acting("admin")
    wanted = read_body(KeyRequest, '{"name": "shop", "scopes": ["events:write"], "expires_in_seconds": 7776000}')
    key, seconds = idempotency_key(), wanted.expires_in_seconds
    life = None if seconds is None else timedelta(seconds=seconds)
    return _made(
        _do(
            lambda session: key_changes.issue_key(
                session, actor, name=wanted.name, scopes=wanted.scopes, life=life, idempotency_key=key
            )
        )
    )


@blueprint.post("/v1/keys/<key_id>/rotate")
def rotate(key_id: str) -> Response:
    """Make a key like this one, which then ends after an overlap."""
    actor, old = acting("admin"), _identifier(key_id)
    overlap = timedelta(
        seconds=read_body(RotateRequest, '{"overlap_seconds": 3600}, or nothing', is_optional=True).overlap_seconds
    )
    key = idempotency_key()
    return _made(_do(lambda session: key_changes.rotate_key(session, actor, old, overlap=overlap, idempotency_key=key)))


@blueprint.post("/v1/keys/<key_id>/revoke")
def revoke(key_id: str) -> Response:
    """End a key. Doing so again changes nothing."""
    actor, wanted = acting("admin"), _identifier(key_id)
    force = read_body(RevokeRequest, 'nothing, or {"force": true}', is_optional=True).force
    revoked = _do(lambda session: key_changes.revoke_own_key(session, actor, wanted, force=force))
    if isinstance(revoked, Refused):
        raise _refusal(revoked)
    return _json(key_view(revoked), 200)


def key_view(entry: KeyEntry) -> dict[str, Any]:
    """A key as a JSON value, without its secret."""
    return {
        "key_id": entry.key_id,
        "prefix": f"hf_{entry.key_id}_",
        "name": entry.name,
        "scopes": list(entry.scopes),
        "state": "revoked" if entry.revoked_at else "expired" if entry.is_expired else "active",
        "created_at": rfc3339(entry.created_at),
        "expires_at": rfc3339(entry.expires_at),
        "last_used_at": rfc3339(entry.last_used_at),
        "revoked_at": rfc3339(entry.revoked_at),
        "replaced_by": entry.replaced_by,
        "links": {"self": f"/v1/keys/{entry.key_id}"},
    }


def _do(work: Callable[[Session], Value]) -> Value:
    def once() -> Value:
        with parts().database.transaction() as session:
            return work(session)

    return reconnecting(once)


def _made(made: Made | Refused) -> Response:
    if isinstance(made, Refused):
        raise _refusal(made)
    body = {"key": made.key, **key_view(made.entry)}
    return _json(body, 201, {"Location": f"/v1/keys/{made.entry.key_id}"})


def _refusal(refused: Refused) -> Problem:
    key_id = refused.key_id
    if refused.reason is Refusal.MISSING:
        return missing(NAME)
    if refused.reason is Refusal.REPEATED:
        detail = f"this request made the key {key_id} before, and its secret is not kept; rotate that key"
        return Problem(409, "key_made_before", detail)
    if refused.reason is Refusal.REPLACED:
        return Problem(409, "key_replaced", f"this key was rotated before; rotate {key_id}, which took its place")
    if refused.reason is Refusal.LAST_ADMINISTRATOR:
        detail = 'no other key has the scope admin; make one, or send {"force": true} to leave only the command'
        return Problem(409, "last_admin_key", f"{detail} 'python -m holdfast.storage keys create'")
    return Problem(409, f"key_{refused.reason}", f"this key is {refused.reason} and is not rotated; create another one")


def _identifier(text: str) -> str:
    """The id in a path; 404 for what no key is called."""
    if re.fullmatch(_KEY_ID, text, re.ASCII) is None:
        raise missing(NAME)
    return text


def _json(body: Any, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(body), status, headers, content_type="application/json")
