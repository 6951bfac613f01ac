"""The Dramatiq module: ``dramatiq holdfast.processor.actors``. One actor for all types; it always acknowledges."""

import os
import sys
from uuid import UUID

import dramatiq
from dramatiq import Middleware, Worker
from dramatiq.broker import Broker

from holdfast.domain.errors import HoldfastError
from holdfast.messaging import doorbell
from holdfast.messaging.broker import redis_broker, redis_client
from holdfast.messaging.live import Publisher
from holdfast.processor import VERSION
from holdfast.processor.execute import Executor
from holdfast.processor.registry import Handlers, discover
from holdfast.runtime import logging
from holdfast.runtime.background import Batcher
from holdfast.runtime.health import Check, serve_health
from holdfast.runtime.settings import ProcessorSettings, load
from holdfast.runtime.telemetry import Log
from holdfast.storage.database import Database
from holdfast.storage.schema import check_revision
from holdfast.storage.updates import UpdateKey, mark_published

log = logging.get(__name__)

REDIS_TIMEOUT_SECONDS = 1.0
"""For publishing after a commit; the relay does it when Redis does not answer in time."""


class Process(Middleware):
    """Opens what the worker process needs once it is forked, and closes it after its last event.

    Connections must not cross the fork, so nothing is opened when this module is imported.
    """

    def __init__(self, settings: ProcessorSettings) -> None:
        self.settings = settings
        self.executor: Executor | None = None

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Load the handlers and open the connections, before the first message is fetched."""
        settings = self.settings
        logging.configure(
            service="processor", version=VERSION, log_format=settings.log_format, level=settings.log_level
        )  # fmt: skip
        handlers = discover(settings.handlers)
        self._claims = self._database(is_durable=False)
        self._effects = self._database(is_durable=True)
        self._published: Batcher[UpdateKey] = Batcher("mark-published", self._mark)
        live = redis_client(settings.redis_url.get_secret_value(), timeout_seconds=REDIS_TIMEOUT_SECONDS)
        self.executor = Executor(
            handlers,
            claims=self._claims,
            effects=self._effects,
            publisher=Publisher(
                live, window_seconds=settings.live_window_seconds, window_updates=settings.live_window_updates
            ),
            published=self._published,
            owner=f"{settings.node_name}:{os.getpid()}",
            lease_seconds=settings.lease_seconds,
        )
        checks = {
            "database": Check(lambda: self._check_schema()),
            "live": Check(live.ping, is_optional=True),
            "broker": Check(broker.client.ping, is_optional=True),  # type: ignore[attr-defined]
        }
        self._published.start()
        serve_health(
            settings.metrics_host, settings.metrics_port, checks,
            is_alive=lambda: all(thread.is_alive() for thread in worker.workers),
        )  # fmt: skip
        _say_started(handlers)

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        """Mark what was published and let go of the database."""
        self._published.stop()
        self._claims.close()
        self._effects.close()
        log.info(Log.STOPPED)

    def _database(self, *, is_durable: bool) -> Database:
        # A connection per thread: a thread that waits for another one would hold a lease while it does nothing.
        return Database(
            self.settings.database_url.get_secret_value(),
            application_name="holdfast-processor",
            pool_size=self.settings.processor_threads + 1,
            is_durable=is_durable,
        )

    def _mark(self, keys: list[UpdateKey]) -> None:
        with self._effects.transaction() as session:
            mark_published(session, keys)

    def _check_schema(self) -> None:
        with self._effects.transaction() as session:
            check_revision(session)


def _say_started(handlers: Handlers) -> None:
    log.info(Log.HANDLERS_LOADED, handlers={handler.name: list(handler.patterns) for handler in handlers})


def _setup() -> Process:
    try:
        settings = load(ProcessorSettings)
        discover(settings.handlers)  # in the parent as well: a bad handler ends the start, not a child in a loop
    except HoldfastError as exc:
        sys.exit(str(exc))
    process = Process(settings)
    dramatiq.set_broker(
        redis_broker(
            settings.broker_url.get_secret_value(),
            timeout_seconds=REDIS_TIMEOUT_SECONDS,
            is_consumer=True,
            middleware=[process],
        )
    )
    return process


process = _setup()


@dramatiq.actor(actor_name=doorbell.ACTOR, queue_name=doorbell.QUEUE)
def process_event(event_id: str, version: int) -> None:
    """Answer one doorbell. Arguments are the contract ``doorbell.v1``."""
    if process.executor is not None:
        process.executor.execute(UUID(event_id), version)
