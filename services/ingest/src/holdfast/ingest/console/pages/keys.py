"""API keys: what each may do, when it was used last and when it ends; making, rotating and revoking them."""

import re
from datetime import timedelta
from typing import Any, TypeVar

from flask import Blueprint, redirect, request
from pydantic import BaseModel, ValidationError
from werkzeug.wrappers import Response as AnyResponse

from holdfast.ingest.console import changes, reading
from holdfast.ingest.console.cookies import COOKIE_PATH
from holdfast.ingest.console.pages.forms import faults_of, key_of, new_key
from holdfast.ingest.console.rendering import page
from holdfast.ingest.console.visit import COOKIE, Role, Visit, require_role
from holdfast.ingest.http.problems import Problem
from holdfast.ingest.http.routes.keys import DEFAULT_OVERLAP_SECONDS, MAX_NAME_CHARACTERS, KeyRequest, RotateRequest
from holdfast.storage.key_changes import Made, Refusal, Refused
from holdfast.storage.keys import SCOPES, KeyEntry

__all__ = ["add"]

SHOWN = 50

HOUR, DAY = 3600, 86_400

LIVES = {30 * DAY: "30 days", 90 * DAY: "90 days", 365 * DAY: "a year", DAY: "a day", 7 * DAY: "a week"}
"""What a form offers for until when a key is good, in seconds; the first one unless another is chosen. Or never."""

OVERLAPS = {DEFAULT_OVERLAP_SECONDS: "a day", 0: "no time: it has leaked", HOUR: "an hour", 7 * DAY: "a week",
            30 * DAY: "30 days"}  # fmt: skip
"""What a form offers for how long a key that is rotated stays good, likewise."""

MEANINGS = {
    "events:write": "sends events",
    "events:read": "sees events and their data",
    "operate": "sees the texts of errors, replays and discards, revokes tokens",
    "admin": "everything, keys and nodes too",
}
"""Of the scopes, for the form."""

_ID = re.compile(r"[a-z0-9]{12}", re.ASCII)

Model = TypeVar("Model", bound=BaseModel)


def add(room: Blueprint) -> None:
    """Add the addresses."""
    room.add_url_rule("/keys", "keys", _list)
    room.add_url_rule("/keys", "make_key", _make, methods=["POST"])
    room.add_url_rule("/keys/new", "new_key", _new)
    room.add_url_rule("/keys/<key_id>", "key", _show)
    room.add_url_rule("/keys/<key_id>/rotate", "rotate_key", _rotate, methods=["POST"])
    room.add_url_rule("/keys/<key_id>/revoke", "revoke_key", _revoke, methods=["POST"])


def _list() -> AnyResponse:
    """The keys, the newest first."""
    current = require_role(Role.ADMIN)
    cursor = request.args.get("cursor") or None
    if cursor is not None and _ID.fullmatch(cursor) is None:
        raise Problem(400, "invalid_request", "there is no such page; go back to the newest keys")
    found = reading.key_page(current.tenant, limit=SHOWN, after_id=cursor)
    return page("keys.html", keys=found.items, next_id=found.next_id)


def _new() -> AnyResponse:
    """The form for a key."""
    require_role(Role.ADMIN)
    return _form([], name="", scopes=KeyRequest.model_fields["scopes"].default)


def _make() -> AnyResponse:
    """Make a key, and show the whole of it, this once."""
    current = require_role(Role.ADMIN)
    name, scopes, seconds = request.form.get("name", ""), request.form.getlist("scopes"), request.form.get("expires")
    values = {"name": name, "scopes": scopes, "expires_in_seconds": seconds or None}
    wanted = _read(KeyRequest, values)
    if isinstance(wanted, list):
        response = _form(wanted, name=name[:MAX_NAME_CHARACTERS], scopes=scopes)
        response.status_code = 400
        return response
    life = None if wanted.expires_in_seconds is None else timedelta(seconds=wanted.expires_in_seconds)
    made = changes.issue_key(
        current.actor, name=wanted.name, scopes=wanted.scopes, life=life, idempotency_key=key_of(request.form)
    )
    return _after(made, replaced=None)


def _show(key_id: str) -> AnyResponse:
    """One key, and what can be done with it."""
    current = require_role(Role.ADMIN)
    return page("key.html", key=_present(key_id, current), overlaps=OVERLAPS, request_key=new_key())


def _rotate(key_id: str) -> AnyResponse:
    """Make a key like this one, which then ends after an overlap; show the new one, this once."""
    current = require_role(Role.ADMIN)
    old = _present(key_id, current)
    wanted = _read(RotateRequest, {"overlap_seconds": request.form.get("overlap", "")})
    if isinstance(wanted, list):
        raise Problem(400, "invalid_request", "; ".join(wanted))
    made = changes.rotate_key(
        current.actor,
        old.key_id,
        overlap=timedelta(seconds=wanted.overlap_seconds),
        idempotency_key=key_of(request.form),
    )
    return _after(made, replaced=None if isinstance(made, Refused) else _present(key_id, current))


def _revoke(key_id: str) -> AnyResponse:
    """End a key; the last one that could make others only if that was confirmed."""
    current = require_role(Role.ADMIN)
    wanted = _present(key_id, current)
    done = changes.revoke_key(current.actor, wanted.key_id, force=request.form.get("force") == "yes")
    if isinstance(done, Refused):
        if done.reason is Refusal.MISSING:
            raise _missing()
        response = page("last_key.html", key=wanted, path=f"/console/keys/{wanted.key_id}")
        response.status_code = 409
        return response
    if wanted.key_id != current.actor.key_id:
        return redirect(f"/console/keys/{wanted.key_id}?notice=key_revoked", 303)
    leaving = redirect("/console/sign-in?notice=key_own_revoked", 303)
    leaving.delete_cookie(COOKIE, path=COOKIE_PATH)
    return leaving


def _form(faults: list[str], *, name: str, scopes: list[str]) -> AnyResponse:
    return page(
        "new_key.html", faults=faults, name=name, chosen=scopes, scopes={each: MEANINGS[each] for each in SCOPES},
        lives=LIVES, longest_name=MAX_NAME_CHARACTERS, request_key=new_key(), path="/console/keys/new",
    )  # fmt: skip


def _after(made: Made | Refused, *, replaced: KeyEntry | None) -> AnyResponse:
    """The page with the secret, which is nowhere else: neither in an address nor in a cookie, and no answer here is kept.

    A form that is sent again, as a reload of that page does, makes no second key and leads to the first one.
    """
    if isinstance(made, Made):
        response = page("made_key.html", made=made, replaced=replaced, path=f"/console/keys/{made.entry.key_id}")
        response.status_code = 201
        return response
    if made.reason is Refusal.MISSING:
        raise _missing()
    notice = {Refusal.REPEATED: "key_made_before", Refusal.REPLACED: "key_replaced"}.get(made.reason, "key_ended")
    return redirect(f"/console/keys/{made.key_id}?notice={notice}", 303)


def _read(model: type[Model], values: dict[str, Any]) -> Model | list[str]:
    """What a form asks for; or what is wrong with it, a sentence for each fault."""
    try:
        return model.model_validate(values)
    except ValidationError as exc:
        return faults_of(exc)


def _present(key_id: str, current: Visit) -> KeyEntry:
    found = reading.find_key(key_id, current.tenant) if _ID.fullmatch(key_id) else None
    if found is None:
        raise _missing()
    return found


def _missing() -> Problem:
    return Problem(404, "not_found", "there is no such key; it may be another tenant's")
