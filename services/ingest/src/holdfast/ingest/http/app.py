"""The Flask application."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from flask import Flask, Response, g, request

from holdfast.ingest import VERSION
from holdfast.ingest.http import problems
from holdfast.ingest.http.parts import EXTENSION
from holdfast.ingest.http.parts import parts as parts_of_request
from holdfast.ingest.http.routes import (
    audit,
    discards,
    events,
    health,
    keeping,
    keys,
    lists,
    operate,
    pauses,
    replays,
    schedules,
    stats,
    tenant,
    tokens,
    workers,
)
from holdfast.ingest.http.tracing import begin_request, end_request
from holdfast.ingest.http.wiring import build
from holdfast.runtime import logging, tracing
from holdfast.runtime.ids import uuid7
from holdfast.runtime.settings import IngestSettings, load
from holdfast.runtime.telemetry import Log, Metrics, export_metrics

__all__ = ["Application", "create_app"]

log = logging.get(__name__)

ROUTES = (
    events, lists, operate, replays, discards, schedules, pauses, keeping, stats, tenant, tokens, audit, keys, workers,
    health,
)  # fmt: skip

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,128}", re.ASCII)


Answer = tuple[int, list[tuple[bytes, bytes]], bytes]
"""Status, headers, body."""

Room = Callable[[Flask, IngestSettings], None]
"""Adds further addresses to the application, which knows nothing of them: the console."""

_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
_NO_STORE = (b"cache-control", b"no-store")


class Application(Flask):
    """Flask, asked for its answer without WSGI's way out, which converts every header once more: a tenth of a request."""

    def answer(self, environ: dict[str, Any]) -> Answer:
        """What :meth:`flask.Flask.wsgi_app` does with a request, errors included."""
        context = self.request_context(environ)
        error: Exception | None = None
        try:
            context.push()
            try:
                response = self.full_dispatch_request()
            except Exception as exc:  # noqa: BLE001 (Flask's own way: its handlers make an answer of it)
                error = exc
                response = self.handle_exception(exc)
            return _finish(response)
        finally:
            context.pop(error)


def create_app(settings: IngestSettings | None = None, *, rooms: Sequence[Room] = ()) -> Application:
    """Build the application; reads the environment unless settings are given.

    Raises:
        ConfigurationError: a setting is missing or wrong.
    """
    settings = settings or load(IngestSettings)
    logging.configure(
        service="ingest",
        version=VERSION,
        log_format=settings.log_format,
        level=settings.log_level,
        with_error_texts=settings.log_error_texts,
    )
    tracing.configure(settings, service="ingest", version=VERSION)
    export_metrics("ingest", version=VERSION)
    app = Application(__name__, static_folder=None)
    parts = build(settings)
    app.extensions[EXTENSION] = parts
    app.before_request(_begin)
    problems.install(app)
    for module in ROUTES:
        app.register_blueprint(module.blueprint)
    for install in rooms:
        install(app, settings)
    for part in (parts.copying, parts.looking, parts.used_keys, parts.traffic):
        part.start()
    log.info(Log.STARTED)
    return app


def _begin() -> None:
    given = request.environ.get("HTTP_X_REQUEST_ID", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid7().hex  # in order, as the index likes it
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)
    begin_request(request.environ)


def _finish(response: Response) -> Answer:
    if g.get("is_event_post"):
        Metrics.received.labels(g.outcome).inc()
        parts_of_request().traffic.note(g.outcome, accepted=g.get("accepted", 0), duplicates=g.get("duplicates", 0))
    end_request(response)
    body = response.get_data()
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
    if "Content-Length" not in response.headers:
        headers.append((b"content-length", b"%d" % len(body)))
    headers.append((b"x-request-id", g.get("request_id", "").encode("latin-1")))
    headers.append(_NO_SNIFFING)
    if "Cache-Control" not in response.headers:
        headers.append(_NO_STORE)
    return response.status_code, headers, b"" if request.method == "HEAD" else body
