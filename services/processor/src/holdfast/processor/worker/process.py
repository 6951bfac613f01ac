"""What a worker process has open, and the order in which it begins and ends."""

import os
import threading

from dramatiq import Worker

from holdfast.domain.event import Doorbell
from holdfast.messaging.broker import redis_broker, redis_client
from holdfast.messaging.doorbell import ring
from holdfast.processor.attempt.execute import Executor
from holdfast.processor.attempt.publishing import GuardedPublisher
from holdfast.processor.handlers.registry import Handlers
from holdfast.processor.worker import actors, recovery
from holdfast.processor.worker.broker_watch import BrokerWatch
from holdfast.processor.worker.grace import Grace
from holdfast.processor.worker.poller import Poller
from holdfast.processor.worker.roles import Role
from holdfast.processor.worker.slots import Slots
from holdfast.runtime import logging
from holdfast.runtime.background import Batcher, Repeater
from holdfast.runtime.breaker import Breaker
from holdfast.runtime.health import Check, serve_health
from holdfast.runtime.settings import ProcessorSettings
from holdfast.runtime.telemetry import Log
from holdfast.storage.database import Database
from holdfast.storage.schema import check_revision
from holdfast.storage.updates import UpdateKey, mark_published

__all__ = ["WorkerProcess"]

log = logging.get(__name__)

REDIS_TIMEOUT_SECONDS = 1.0
"""For publishing after a commit; the relay does it when Redis does not answer in time."""

IDLE_SECONDS = 60.0
"""A handler that computes for this long between two statements is taken for lost, or for four leases if that is longer.

While it runs its transaction keeps recovery away, so a worker that is frozen must not keep that for ever.
"""


class WorkerProcess:
    """Everything that a worker process has open."""

    def __init__(self, settings: ProcessorSettings, role: Role, handlers: Handlers) -> None:
        self._settings = settings
        self._role = role
        self._handlers = handlers
        self._log = log.bind(worker=role.name)
        self._is_stopping = False
        self.is_stuck = False
        """A handler hangs for good."""
        self._claims = self._database(is_durable=False)
        self._effects = self._database(is_durable=True)
        self._published: Batcher[UpdateKey] = Batcher("mark-published", self._mark)
        self._live = redis_client(settings.redis_url.get_secret_value(), timeout_seconds=REDIS_TIMEOUT_SECONDS)
        publisher = GuardedPublisher(
            self._live, window_seconds=settings.live_window_seconds, window_updates=settings.live_window_updates
        )
        self._executor = Executor(
            handlers,
            claims=self._claims,
            effects=self._effects,
            publisher=publisher,
            published=self._published,
            owner=f"{settings.node_name}:{os.getpid()}",
            lease_seconds=settings.lease_seconds,
            wake=self._wake,
            on_stuck=self._give_up,
            is_logging_texts=settings.log_error_texts,
        )
        self._ringing = Breaker()
        self._slots = Slots(role.threads)
        self._poller = Poller(
            self._executor, self._slots, is_suspect=role.is_suspect,
            is_broker_answering=lambda: self._broker_watch.is_answering,
        )  # fmt: skip
        broker_url = settings.broker_url.get_secret_value()
        self._broker_watch = BrokerWatch(broker_url, on_loss=self._poller.nudge)
        self._recovery = Repeater(
            "recovery", lambda: recovery.recover(self._effects, publisher), interval_seconds=recovery.INTERVAL_SECONDS
        )
        self.broker = redis_broker(broker_url, timeout_seconds=REDIS_TIMEOUT_SECONDS, is_consumer=True)
        actors.declare(self.broker, queue=role.queue, executor=self._executor, slots=self._slots)
        self._worker = Worker(self.broker, queues={role.queue}, worker_threads=role.threads)
        # More than the threads can take would keep doorbells from other replicas that are idle.
        self._worker.queue_prefetch = role.threads

    def start(self) -> None:
        """Begin."""
        self._published.start()
        self._executor.start()
        self._broker_watch.start()
        self._worker.start()
        self._poller.start()
        self._recovery.start()
        serve_health(self._settings.metrics_host, self._role.metrics_port, self._checks(), is_alive=self.is_alive)
        self._log.info(Log.HANDLERS_LOADED, handlers={each.name: list(each.patterns) for each in self._handlers})

    def is_alive(self) -> bool:
        """Whether every thread that takes part in the work runs, and the last poll is recent."""
        if self._is_stopping:
            return True
        threads = [*self._worker.workers, *self._worker.consumers.values()]
        beside = (self._executor, self._broker_watch, self._recovery)
        return (
            self._poller.is_alive()
            and all(thread.is_alive() for thread in threads)
            and all(each.is_alive for each in beside)
        )

    def stop(self, grace: Grace) -> None:
        """Take nothing new on, wait for what runs, interrupt it shortly before the grace ends, and let go of everything."""
        self._is_stopping = True
        self._log.info(Log.STOPPING)
        self._poller.stop_claiming()
        self._slots.close()
        end_of_grace = threading.Timer(grace.interrupt_after_seconds, self._executor.interrupt)
        end_of_grace.daemon = True
        end_of_grace.start()
        for consumer in self._worker.consumers.values():
            consumer.stop()  # now: one that sleeps because Redis is down takes three seconds to notice
        self._worker.stop(timeout=int(grace.remaining_seconds() * 1000))
        self._poller.join(grace.remaining_seconds())
        end_of_grace.cancel()
        self._close()
        self._log.info(Log.STOPPED)

    def _wake(self, due: Doorbell) -> None:
        """Ring for an event whose turn has come; without a broker, look for it."""
        if not self._ringing.call(lambda: ring(self.broker, [due])):
            self._poller.nudge()

    def _give_up(self) -> None:
        self.is_stuck = True

    def _close(self) -> None:
        self._executor.stop()
        self._recovery.stop(timeout_seconds=1)
        self._broker_watch.stop()
        self._published.stop()
        self._claims.close()
        self._effects.close()

    def _checks(self) -> dict[str, Check]:
        return {
            "database": Check(self._check_schema),
            "live": Check(self._live.ping, is_optional=True),
            "broker": Check(self.broker.client.ping, is_optional=True),
        }

    def _database(self, *, is_durable: bool) -> Database:
        # A connection per thread: a thread that waits for another one would hold a lease while it does nothing.
        return Database(
            self._settings.database_url.get_secret_value(),
            application_name="holdfast-processor",
            pool_size=self._role.threads + 1,
            is_durable=is_durable,
            idle_in_transaction_seconds=max(IDLE_SECONDS, 4 * self._settings.lease_seconds),
        )

    def _mark(self, keys: list[UpdateKey]) -> None:
        with self._effects.transaction() as session:
            mark_published(session, keys)

    def _check_schema(self) -> None:
        with self._effects.transaction() as session:
            check_revision(session)
