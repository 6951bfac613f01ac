"""Signing in with OpenID Connect: the way to the provider, and the way back."""

from collections.abc import Callable
from http import HTTPStatus

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from holdfast.ingest.console.cookies import set_cookie
from holdfast.ingest.console.door import Door
from holdfast.ingest.console.oidc.attempt import ATTEMPT_SECONDS, Attempt, begin_attempt
from holdfast.ingest.console.oidc.client import OidcClient
from holdfast.ingest.console.oidc.failures import NoRole, SignInFailed
from holdfast.ingest.console.oidc.person import Person
from holdfast.ingest.console.pages.signing import (
    SIGN_IN,
    local_address,
    set_session,
    sign_in_page,
    too_many,
)
from holdfast.ingest.console.rendering import page
from holdfast.ingest.console.seal import begin_for
from holdfast.ingest.http.acting import actor_named, sender
from holdfast.ingest.http.parts import parts
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log
from holdfast.storage.audit import note, person_id

__all__ = ["BACK", "COOKIE", "add"]

log = logging.get(__name__)

COOKIE = "holdfast_console_oidc"
"""An attempt. ``Lax``, since a browser brings it back from the provider's site; the session's own stays ``Strict``."""

PATH = "/console/oidc"

BACK = "console.oidc_back"
"""The endpoint to which browsers come from the provider's site."""

ANSWERS = ("state", "code", "iss", "error")


def add(room: Blueprint, door: Door) -> None:
    """Add the addresses, if a provider is configured."""
    if door.oidc is not None:
        room.add_url_rule("/oidc/start", "oidc_start", _start(door, door.oidc))
        room.add_url_rule("/oidc/callback", BACK.partition(".")[2], _back(door, door.oidc))


def _start(door: Door, oidc: OidcClient) -> Callable[[], AnyResponse]:
    def start() -> AnyResponse:
        """Send the browser to the provider. A link and no form: a form's redirect would need the provider in the policy."""
        if wait := door.people.seconds_left(sender()):
            return too_many(door, wait)
        attempt = begin_attempt(local_address(request.args.get("next")))
        try:
            address = oidc.address(attempt)
        except SignInFailed as failure:
            return _refused(door, failure)
        response = redirect(address, 303)
        set_cookie(response, COOKIE, oidc.seal.close(attempt), ATTEMPT_SECONDS, path=PATH, same_site="Lax")
        return response

    return start


def _back(door: Door, oidc: OidcClient) -> Callable[[], AnyResponse]:
    def back() -> AnyResponse:
        """Look at what the browser brings from the provider, and begin a session."""
        if wait := door.people.seconds_left(sender()):
            return too_many(door, wait)
        attempt = oidc.seal.open(request.cookies.get(COOKIE))
        try:
            person = _person(oidc, attempt)
        except SignInFailed as failure:
            return _refused(door, failure)
        return _signed_in(door, oidc, person, attempt.target if attempt else "")

    return back


def _person(oidc: OidcClient, attempt: Attempt | None) -> Person:
    if attempt is None:
        text = (
            "No sign-in is under way in this browser: it was begun elsewhere, is over, took longer than "
            f"{ATTEMPT_SECONDS // 60} minutes, or cookies are off. Begin it here."
        )
        raise SignInFailed("no_attempt", text)
    if any(len(request.args.getlist(name)) > 1 for name in ANSWERS):
        raise SignInFailed("repeated", "The provider's answer has a parameter twice. Begin the sign-in again.")
    return oidc.person(attempt, request.args)


def _signed_in(door: Door, oidc: OidcClient, person: Person, target: str) -> AnyResponse:
    actor = actor_named(person.tenant, person_id(person.subject), person.name)
    parts().database.call(note, actor, "sign_in", detail={"issuer": person.issuer, "role": person.role})
    log.info(Log.SIGNED_IN, role=person.role, tenant=person.tenant, client_address=actor.origin)
    # A page and no redirect: browsers keep a strict cookie back on the way that began at the provider's site.
    response = page("come_again.html", address=local_address(target))
    set_session(response, door.seal, begin_for(person, oidc.rules.mark()))
    response.delete_cookie(COOKIE, path=PATH)
    return response


def _refused(door: Door, failure: SignInFailed) -> Response:
    client = sender()
    log.warning(Log.SIGN_IN_REFUSED, code=failure.code, client_address=client)
    if failure.status < HTTPStatus.INTERNAL_SERVER_ERROR and failure.code not in _UNCOUNTED:
        door.people.note_failure(client)
    if not isinstance(failure, NoRole):
        return sign_in_page(door, problem=failure.text, status=failure.status)
    response = page(
        "no_role.html", text=failure.text, claim=failure.claim, values=failure.values, count=failure.count, path=SIGN_IN
    )
    response.status_code = failure.status
    return response


_UNCOUNTED = frozenset({"no_attempt", "state", "no_role", "no_tenant"})
"""Failures that cost the provider nothing, or that are no try at getting in: they do not count towards the limit, and nor do
the provider's own (from 500 on)."""
