"""Pausing and resuming handlers, types, pools and the tenant; the page of handlers shows what is paused."""

from flask import Blueprint, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from holdfast.domain.names import is_text
from holdfast.domain.pauses import MAX_NOTE_LENGTH, NAME_RULES, PauseKind, is_pausable
from holdfast.ingest.console.pages.forms import path_id
from holdfast.ingest.console.visit import Role, require_role
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.problems import Problem
from holdfast.ingest.operate import pauser
from holdfast.ingest.operate.pauser import ForAdministrators
from holdfast.storage.pauses import TooManyPauses

__all__ = ["add"]

PAUSE = "pause that concerns your tenant; somebody may have resumed it"


def add(room: Blueprint) -> None:
    """Add the addresses."""
    room.add_url_rule("/pauses", "pause", _pause, methods=["POST"])
    room.add_url_rule("/pauses/<pause_id>/resume", "resume", _resume, methods=["POST"])


def _pause() -> AnyResponse:
    """Begin nothing more of what the form names."""
    current = require_role(Role.OPERATOR)
    kind, name, note = _wanted(current.tenant)
    try:
        _, is_new = pauser.pause(
            parts().database, current.actor, kind, name, note=note or None, is_admin=current.may(Role.ADMIN)
        )
    except ForAdministrators:
        raise _for_administrators() from None
    except TooManyPauses as exc:
        raise Problem(409, "too_many_pauses", "there are as many pauses as there may be; resume one first") from exc
    return redirect(f"/console/handlers?notice={'paused' if is_new else 'paused_before'}#pauses", 303)


def _resume(pause_id: str) -> AnyResponse:
    """Let it go on."""
    current = require_role(Role.OPERATOR)
    known = path_id(pause_id, PAUSE)
    try:
        ended = pauser.resume(parts().database, current.actor, known, is_admin=current.may(Role.ADMIN))
    except ForAdministrators:
        raise _for_administrators() from None
    if ended is None:
        raise Problem(404, "not_found", f"there is no such {PAUSE}")
    return redirect("/console/handlers?notice=resumed#pauses", 303)


def _wanted(tenant: str) -> tuple[PauseKind, str, str]:
    """Kind, name and note of the form.

    Raises:
        Problem: 400.
    """
    given, note = request.form.get("kind", ""), request.form.get("note", "").strip()
    if given not in list(PauseKind):
        raise Problem(400, "invalid_request", "say what to pause: a handler, a type, a tenant or a pool")
    kind = PauseKind(given)
    name = tenant if kind is PauseKind.TENANT else request.form.get("name", "").strip()
    if not is_pausable(kind, name):
        raise Problem(400, "invalid_request", f"a pause of this kind takes {NAME_RULES[kind]}")
    if len(note) > MAX_NOTE_LENGTH or not is_text(note):
        raise Problem(400, "invalid_request", f"a note has at most {MAX_NOTE_LENGTH} characters on one line")
    return kind, name, note


def _for_administrators() -> Problem:
    return Problem(403, "forbidden", "handlers and pools work for all tenants, so pausing them takes the role admin")
