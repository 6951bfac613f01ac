"""Adding the console to the application: addresses, headers on every answer, and errors as pages."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Flask, Response, redirect, request
from werkzeug.exceptions import HTTPException

from holdfast.domain.errors import DatabaseUnavailable, DataUnreadable, KeyMissing, StatementTooSlow
from holdfast.ingest.console import assets, errors, rendering, visit
from holdfast.ingest.console.door import Door
from holdfast.ingest.console.oidc.client import client_of
from holdfast.ingest.console.pages import (
    audit,
    dead_letters,
    edit,
    event,
    events,
    handlers,
    keys,
    live,
    oidc,
    overview,
    pauses,
    preferences,
    replays,
    retention,
    schedules,
    signing,
    tenant,
    workers,
)
from holdfast.ingest.console.seal import Seal
from holdfast.ingest.http.problems import Problem
from holdfast.runtime.settings import IngestSettings

__all__ = ["content_security_policy", "install"]

PAGES = (
    overview, events, event, edit, dead_letters, replays, handlers, pauses, schedules, workers, keys, tenant, audit,
    preferences, live, retention,
)  # fmt: skip

MAX_FORM_BYTES = 64 * 1024
"""The longest form is a filter of ten values with 1 KiB each, percent-encoded."""

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def install(app: Flask, settings: IngestSettings) -> None:
    """Serve the console, unless the setting that signs its sessions is missing."""
    if settings.console_secret is None:
        return
    room = Blueprint("console", __name__, url_prefix="/console", template_folder="templates")
    door = Door(Seal(settings.console_secret.get_secret_value()), client_of(settings))
    for each in PAGES:
        each.add(room)
    signing.add(room, door)
    oidc.add(room, door)
    room.before_request(_entering(door, settings.max_event_bytes))
    room.after_request(_with_headers(content_security_policy(settings.public_live_url)))
    _install_errors(room)
    # A catch-all, so that an unknown address under /console is a page of the console and not a problem of the API.
    room.add_url_rule("/<path:_>", "missing", _missing, methods=METHODS)
    rendering.install(room)
    app.register_blueprint(room)
    app.register_blueprint(assets.blueprint)


def content_security_policy(live_url: str | None) -> str:
    """Nothing inline, nothing from elsewhere, and of the network the gateway alone."""
    address = urlsplit(live_url or "")
    gateway = f" {address.scheme}://{address.netloc}" if address.scheme in ("ws", "wss") and address.netloc else ""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        f"connect-src 'self'{gateway}; form-action 'self'; frame-ancestors 'none'; base-uri 'none'; "
        "require-trusted-types-for 'script'; trusted-types holdfast-console"
    )


def _entering(door: Door, most_data: int) -> Callable[[], Response | None]:
    rules = door.oidc.rules if door.oidc else None

    def come_in() -> Response | None:
        is_data = request.endpoint == edit.EDITED
        request.max_content_length = MAX_FORM_BYTES + (most_data if is_data else 0)
        visit.enter(door.seal, rules)
        if request.method not in ("GET", "HEAD"):
            visit.check_form()
        return None if request.endpoint == oidc.BACK else errors.come_again_from_here()

    return come_in


def _with_headers(policy: str) -> Callable[[Response], Response]:
    def add(response: Response) -> Response:
        response.headers.setdefault("Content-Security-Policy", policy)
        # Not no-referrer: with that a browser sends "Origin: null" along with our own forms.
        response.headers["Referrer-Policy"] = "same-origin"
        response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        response.headers["X-Frame-Options"] = "DENY"
        response.headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=()"
        return response

    return add


def _install_errors(room: Blueprint) -> None:
    room.register_error_handler(visit.SignInNeeded, _to_sign_in)
    for kind, answer in (
        (Problem, errors.problem_page),
        (HTTPException, errors.http_page),
        (DatabaseUnavailable, errors.unavailable_page),
        (StatementTooSlow, errors.slow_page),
        (KeyMissing, errors.sealed_page),
        (DataUnreadable, errors.sealed_page),
        (Exception, errors.unexpected_page),
    ):
        room.register_error_handler(kind, answer)


def _to_sign_in(needed: visit.SignInNeeded) -> Any:
    return redirect(signing.address(has_ended=needed.has_ended), 303)


def _missing(_: str) -> Response:
    raise Problem(404, "not_found", "the console has no page at this address")
