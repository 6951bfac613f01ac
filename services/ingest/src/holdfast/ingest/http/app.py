"""The Flask application and what it is made of."""

import re
from dataclasses import dataclass
from uuid import uuid4

import structlog
from flask import Flask, Response, g, request
from redis import Redis

from holdfast.ingest import VERSION
from holdfast.ingest.http import problems
from holdfast.ingest.http.auth import Authenticator
from holdfast.ingest.http.routes import events, health, lists, operate, replays, tokens
from holdfast.ingest.intake.announce import Announcer
from holdfast.ingest.intake.backpressure import Backpressure
from holdfast.ingest.intake.record import Recorder
from holdfast.ingest.operate.operator import Operator
from holdfast.messaging.broker import redis_broker, redis_client
from holdfast.messaging.live import Publisher
from holdfast.runtime import logging
from holdfast.runtime.background import Batcher
from holdfast.runtime.health import Check, serve_health
from holdfast.runtime.settings import IngestSettings, load
from holdfast.runtime.telemetry import Log, Metrics
from holdfast.storage.backlog import oldest_due_age_seconds
from holdfast.storage.database import Database
from holdfast.storage.schema import check_revision
from holdfast.storage.updates import UpdateKey, mark_published

__all__ = ["Parts", "create_app"]

log = logging.get(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the routes work with, found at ``app.extensions["holdfast"]``."""

    settings: IngestSettings
    database: Database
    recorder: Recorder
    operator: Operator
    backpressure: Backpressure
    authenticator: Authenticator
    published: Batcher[UpdateKey]
    checks: dict[str, Check]
    redis: tuple[Redis, ...]

    def close(self) -> None:
        """Mark what was published, and let go of the servers."""
        self.published.stop()
        self.database.close()
        for client in self.redis:
            client.close()
        log.info(Log.STOPPED)


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
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_event_bytes + 1
    parts = _parts(settings)
    app.extensions["holdfast"] = parts
    app.before_request(_begin)
    app.after_request(_finish)
    problems.install(app)
    for module in (events, lists, operate, replays, tokens, health):
        app.register_blueprint(module.blueprint)
    parts.published.start()
    serve_health(settings.metrics_host, settings.metrics_port, parts.checks)
    log.info(Log.STARTED)
    return app


def _parts(settings: IngestSettings) -> Parts:
    timeout = settings.redis_timeout_seconds
    database = Database(
        settings.database_url.get_secret_value(), application_name="holdfast-ingest",
        pool_size=settings.database_pool_size, connect_timeout_seconds=3, statement_timeout_seconds=10,
    )  # fmt: skip
    live = redis_client(settings.redis_url.get_secret_value(), timeout_seconds=timeout)
    broker = redis_broker(settings.broker_url.get_secret_value(), timeout_seconds=timeout, is_consumer=False)
    publisher = Publisher(
        live, window_seconds=settings.live_window_seconds, window_updates=settings.live_window_updates
    )  # fmt: skip
    published: Batcher[UpdateKey] = Batcher("mark-published", lambda keys: _mark(database, keys))
    announcer, grace = Announcer(publisher, broker, published), settings.redispatch_grace_seconds
    return Parts(
        settings=settings,
        database=database,
        recorder=Recorder(database, announcer, grace_seconds=grace),
        operator=Operator(database, announcer, grace_seconds=grace),
        backpressure=Backpressure(lambda: _oldest_due(database), limit_seconds=settings.backlog_limit_seconds),
        authenticator=Authenticator(database, cache_seconds=settings.key_cache_seconds),
        published=published,
        checks={
            "database": Check(lambda: _check_schema(database)),
            "live": Check(live.ping, is_optional=True),
            "broker": Check(broker.client.ping, is_optional=True),
        },
        redis=(live, broker.client),
    )


def _mark(database: Database, keys: list[UpdateKey]) -> None:
    with database.transaction() as session:
        mark_published(session, keys)


def _oldest_due(database: Database) -> float:
    with database.transaction() as session:
        return oldest_due_age_seconds(session, with_suspects=False)


def _check_schema(database: Database) -> None:
    with database.transaction() as session:
        check_revision(session)


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
