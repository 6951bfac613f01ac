"""The Dramatiq module: ``dramatiq holdfast.processor.actors``. One actor for all types; it always acknowledges.

Dramatiq imports it in each worker process, after the fork.
"""

import os
import sys
import threading
from uuid import UUID

import dramatiq
import redis
from dramatiq import Middleware, Worker
from dramatiq.broker import Broker

from holdfast.domain.errors import HoldfastError
from holdfast.messaging import doorbell
from holdfast.messaging.broker import DoorbellBroker, redis_broker, redis_client
from holdfast.messaging.live import Publisher
from holdfast.processor import VERSION
from holdfast.processor.discovery import discover
from holdfast.processor.execute import Executor
from holdfast.processor.registry import Handlers
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

RELEASE_SECONDS = 2.0
"""The end of the grace at shutdown that is kept for giving back the events of interrupted handlers."""

IDLE_SECONDS = 60.0
"""A handler that computes for this long between two statements is taken for lost, or for four leases if that is longer.

While it runs its transaction keeps recovery away, so a worker that is frozen must not keep that for ever.
"""


class Process(Middleware):
    """Opens what the worker process needs before its first message, and closes it after its last one."""

    def __init__(self, settings: ProcessorSettings, handlers: Handlers) -> None:
        self._settings = settings
        self._handlers = handlers
        self._claims = self._database(is_durable=False)
        self._effects = self._database(is_durable=True)
        self._published: Batcher[UpdateKey] = Batcher("mark-published", self._mark)
        self._live = redis_client(settings.redis_url.get_secret_value(), timeout_seconds=REDIS_TIMEOUT_SECONDS)
        publisher = Publisher(
            self._live, window_seconds=settings.live_window_seconds, window_updates=settings.live_window_updates
        )
        self.executor = Executor(
            handlers,
            claims=self._claims,
            effects=self._effects,
            publisher=publisher,
            published=self._published,
            owner=f"{settings.node_name}:{os.getpid()}",
            lease_seconds=settings.lease_seconds,
        )
        grace = settings.shutdown_seconds
        self._end_of_grace = threading.Timer(grace - min(RELEASE_SECONDS, grace / 4), self.executor.interrupt)
        self._end_of_grace.daemon = True

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Begin."""
        self._published.start()
        self.executor.start()
        checks = {
            "database": Check(self._check_schema),
            "live": Check(self._live.ping, is_optional=True),
            "broker": Check(_client(broker).ping, is_optional=True),
        }
        serve_health(
            self._settings.metrics_host, self._settings.metrics_port, checks,
            is_alive=lambda: self.executor.is_alive and all(thread.is_alive() for thread in worker.workers),
        )  # fmt: skip
        log.info(Log.HANDLERS_LOADED, handlers={each.name: list(each.patterns) for each in self._handlers})

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        """Dramatiq now waits for the handlers that run; towards the end of the grace they are interrupted."""
        log.info(Log.STOPPING)
        self._end_of_grace.start()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        """Mark what was published and let go of the database."""
        self._end_of_grace.cancel()
        self.executor.stop()
        self._published.stop()
        self._claims.close()
        self._effects.close()
        log.info(Log.STOPPED)

    def _database(self, *, is_durable: bool) -> Database:
        # A connection per thread: a thread that waits for another one would hold a lease while it does nothing.
        return Database(
            self._settings.database_url.get_secret_value(),
            application_name="holdfast-processor",
            pool_size=self._settings.processor_threads + 1,
            is_durable=is_durable,
            idle_in_transaction_seconds=max(IDLE_SECONDS, 4 * self._settings.lease_seconds),
        )

    def _mark(self, keys: list[UpdateKey]) -> None:
        with self._effects.transaction() as session:
            mark_published(session, keys)

    def _check_schema(self) -> None:
        with self._effects.transaction() as session:
            check_revision(session)


def _client(broker: Broker) -> "redis.Redis":
    if not isinstance(broker, DoorbellBroker):
        raise TypeError("the processor runs on a DoorbellBroker")
    return broker.client


def _setup() -> Process:
    """Everything that can be wrong with settings and handlers ends the process here.

    Not in a middleware hook: Dramatiq logs an exception there and goes on, and a worker without handlers would acknowledge
    every doorbell.
    """
    try:
        settings = load(ProcessorSettings)
        logging.configure(
            service="processor", version=VERSION, log_format=settings.log_format, level=settings.log_level
        )  # fmt: skip
        process = Process(settings, discover(settings.handlers))
    except HoldfastError as exc:
        sys.exit(str(exc))
    broker = redis_broker(
        settings.broker_url.get_secret_value(),
        timeout_seconds=REDIS_TIMEOUT_SECONDS,
        is_consumer=True,
        middleware=[process],
    )
    broker.declare_queue(doorbell.SUSPECT_QUEUE)  # no actor names it
    dramatiq.set_broker(broker)
    return process


process = _setup()


# notify_shutdown: Dramatiq would interrupt running handlers when the grace begins.
@dramatiq.actor(actor_name=doorbell.ACTOR, queue_name=doorbell.QUEUE, notify_shutdown=False)
def process_event(event_id: str, version: int) -> None:
    """Answer one doorbell. Arguments are the contract ``doorbell.v1``."""
    process.executor.execute(UUID(event_id), version)
