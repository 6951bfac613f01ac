"""Signing in with an API key, and signing out. Sessions begin and end here."""

from collections.abc import Callable
from urllib.parse import urlencode, urlsplit

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from holdfast.ingest.console.cookies import COOKIE_PATH, set_cookie
from holdfast.ingest.console.door import Door
from holdfast.ingest.console.oidc.client import START, OidcClient
from holdfast.ingest.console.rendering import page
from holdfast.ingest.console.roles import role_of
from holdfast.ingest.console.seal import Seal, Session, begin, seconds_of
from holdfast.ingest.console.visit import COOKIE, visit
from holdfast.ingest.http.acting import actor_of, sender
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.problems import Problem
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log
from holdfast.storage.audit import note
from holdfast.storage.keys import KeyHolder

__all__ = [
    "SIGN_IN",
    "add",
    "address",
    "local_address",
    "set_session",
    "sign_in_page",
    "too_many",
]

log = logging.get(__name__)

HOME = "/console/"
SIGN_IN = "/console/sign-in"

MAX_KEY_CHARACTERS = 200
"""A key has 59. Space around one that was pasted is cut off."""


def add(room: Blueprint, door: Door) -> None:
    """Add the addresses."""
    room.add_url_rule("/sign-in", "sign_in", _form(door))
    room.add_url_rule("/sign-in", "signing_in", _signing_in(door), methods=["POST"])
    room.add_url_rule("/sign-out", "sign_out", _sign_out, methods=["POST"])


def address(*, has_ended: bool = False) -> str:
    """The sign-in page, which leads back to the present one."""
    back = request.full_path.rstrip("?") if request.method == "GET" else HOME
    query = {"next": back} if back not in (HOME, COOKIE_PATH) else {}
    query |= {"notice": "ended"} if has_ended else {}
    return f"{COOKIE_PATH}/sign-in" + (f"?{urlencode(query)}" if query else "")


def local_address(text: str | None) -> str:
    """An address of the console to go to next; the overview for whatever else is asked for.

    Browsers read ``//host`` and ``/\\host`` as another host's address, and drop line ends and tabs while they read.
    """
    is_plain = text is not None and text.isascii() and text.isprintable() and "\\" not in text
    path = urlsplit(text or "").path if is_plain else ""
    is_ours = (
        path.startswith(HOME)
        and not path.startswith((f"{COOKIE_PATH}/sign", f"{COOKIE_PATH}/theme", f"{COOKIE_PATH}/oidc"))
        and "//" not in path
    )
    return text if text is not None and is_ours and text.startswith(HOME) else HOME


def _sign_out() -> AnyResponse:
    """End the session in this browser. To end one elsewhere, revoke the key. At a provider somebody stays signed in."""
    response = redirect(f"{COOKIE_PATH}/sign-in?notice=signed_out", 303)
    response.delete_cookie(COOKIE, path=COOKIE_PATH)
    response.headers["Clear-Site-Data"] = '"cache"'
    return response


def _form(door: Door) -> Callable[[], AnyResponse]:
    def sign_in() -> AnyResponse:
        """The form; to the console for somebody who is signed in."""
        if visit().holder is not None:
            return redirect(local_address(request.args.get("next")), 303)
        return sign_in_page(door)

    return sign_in


def _signing_in(door: Door) -> Callable[[], AnyResponse]:
    def signing_in() -> AnyResponse:
        """Look at the key, and begin a session."""
        client = sender()
        if wait := door.keys.seconds_left(client):
            return too_many(door, wait)
        try:
            holder = _holder(request.form.get("key", ""))
        except Problem as problem:
            door.keys.note_failure(client)
            log.warning(Log.SIGN_IN_REFUSED, code=problem.code, client_address=client)
            return sign_in_page(door, problem=_REFUSALS[problem.code], status=problem.status)
        return _signed_in(door.seal, holder)

    return signing_in


_REFUSALS = {
    "unauthorized": "That is no active key. A key looks like hf_…_…, and is shown once, when it is made.",
    "key_expired": "This key has expired. Create another one.",
    "forbidden": "This key may not read events. Create one with the scope events:read, and operate to act on them.",
}


def _holder(text: str) -> KeyHolder:
    """Whose key this is.

    Raises:
        Problem: 401 or 403.
    """
    holder = parts().authenticator.holder(f"Bearer {text.strip()[:MAX_KEY_CHARACTERS]}")
    if role_of(holder) is None:
        raise Problem(403, "forbidden", "this key lacks the scope events:read")
    return holder


def _signed_in(seal: Seal, holder: KeyHolder) -> AnyResponse:
    actor = actor_of(holder)
    parts().database.call(note, actor, "sign_in", detail={"role": role_of(holder)})
    log.info(
        Log.SIGNED_IN, key_id=holder.key_id, role=role_of(holder), tenant=holder.tenant, client_address=actor.origin
    )
    response = redirect(local_address(request.form.get("next")), 303)
    set_session(response, seal, begin(holder))
    return response


def too_many(door: Door, wait_seconds: float) -> Response:
    """An address that has failed too often."""
    wait = round(wait_seconds) + 1
    detail = f"There were too many attempts from your address. Wait {wait} s, then try again."
    response = sign_in_page(door, problem=detail, status=429)
    response.headers["Retry-After"] = str(wait)
    return response


def sign_in_page(door: Door, *, problem: str | None = None, status: int = 200) -> Response:
    """The form, with a session for its token where the browser has none yet."""
    session = visit().session
    is_new = not session.csrf or session.is_signed_in
    session = begin() if is_new else session
    target = local_address(request.form.get("next") or request.args.get("next"))
    oidc = door.oidc and {"name": door.oidc.name, "address": _start(door.oidc, target)}
    # Not the present address: on the way back from a provider it has the code.
    response = page("sign_in.html", csrf=session.csrf, problem=problem, target=target, oidc=oidc, path=SIGN_IN)
    response.status_code = status
    if is_new:
        set_session(response, door.seal, session)
    return response


def _start(oidc: OidcClient, target: str) -> str:
    """With the host that the provider sends browsers back to: cookies of another one would not be there."""
    return f"{oidc.origin}{START}?{urlencode({'next': target})}"


def set_session(response: AnyResponse, seal: Seal, session: Session) -> None:
    """Begin a session in the browser."""
    set_cookie(response, COOKIE, seal.close(session), seconds_of(session))
