"""The Flask application."""

import re
from uuid import uuid4

import structlog
from flask import Flask, Response, g, request

from holdfast.ingest import VERSION
from holdfast.ingest.http import problems
from holdfast.ingest.http.parts import EXTENSION
from holdfast.ingest.http.routes import events, health, lists, operate, replays, tokens
from holdfast.ingest.http.wiring import build
from holdfast.runtime import logging
from holdfast.runtime.settings import IngestSettings, load
from holdfast.runtime.telemetry import Log, Metrics, export_metrics

__all__ = ["create_app"]

log = logging.get(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,128}", re.ASCII)


def create_app(settings: IngestSettings | None = None) -> Flask:
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
    export_metrics("ingest")
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = max(settings.max_event_bytes, settings.max_batch_bytes) + 1
    parts = build(settings)
    app.extensions[EXTENSION] = parts
    app.before_request(_begin)
    app.after_request(_finish)
    problems.install(app)
    for module in (events, lists, operate, replays, tokens, health):
        app.register_blueprint(module.blueprint)
    for part in (parts.copying, parts.used_keys):
        part.start()
    log.info(Log.STARTED)
    return app


def _begin() -> None:
    given = request.headers.get("X-Request-Id", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def _finish(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.get("request_id", "")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    if g.get("is_event_post"):
        Metrics.received.labels(g.outcome).inc()
    return response
