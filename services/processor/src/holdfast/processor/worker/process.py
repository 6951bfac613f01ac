"""What a worker process has open, and the order in which it begins and ends."""

import os
import threading
import time
from uuid import UUID

from holdfast.domain.event import Doorbell
from holdfast.messaging.announce import Announcer
from holdfast.messaging.brokers import open_bell
from holdfast.messaging.live import open_publisher
from holdfast.processor.attempt.execute import Executor
from holdfast.processor.handlers.registry import Handlers
from holdfast.processor.worker import recovery
from holdfast.processor.worker.board import Board
from holdfast.processor.worker.broker_watch import BrokerWatch
from holdfast.processor.worker.grace import Grace
from holdfast.processor.worker.poller import Poller
from holdfast.processor.worker.roles import Role
from holdfast.processor.worker.slots import Slots
from holdfast.runtime import logging
from holdfast.runtime.background import Batcher, Repeater
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

INSIST_SECONDS = 0.5
"""Between two interruptions of handlers whose process has to go."""


class WorkerProcess:
    """Everything that a worker process has open."""

    def __init__(self, settings: ProcessorSettings, role: Role, handlers: Handlers, board: Board) -> None:
        self._settings = settings
        self._role = role
        self._handlers = handlers
        self._board = board
        self._started_at = time.monotonic()
        self._log = log.bind(worker=role.name)
        self._is_stopping = False
        self.is_stuck = False
        """A handler hangs for good."""
        self._claims = self._database(is_durable=False)
        self._effects = self._database(is_durable=True)
        self._published: Batcher[UpdateKey] = Batcher("mark-published", self._mark)
        broker_url = settings.broker_url.get_secret_value()
        self._bell = open_bell(broker_url, timeout_seconds=REDIS_TIMEOUT_SECONDS, is_consumer=True)
        self._publisher = open_publisher(
            settings.redis_url.get_secret_value(), timeout_seconds=REDIS_TIMEOUT_SECONDS,
            window_seconds=settings.live_window_seconds, window_updates=settings.live_window_updates,
        )  # fmt: skip
        self._announcer = Announcer(self._publisher, self._bell, note_published=self._published.add_all)
        self._executor = Executor(
            handlers,
            claims=self._claims,
            effects=self._effects,
            announcer=self._announcer,
            owner=f"{settings.node_name}:{os.getpid()}",
            lease_seconds=settings.lease_seconds,
            wake=self._wake,
            on_stuck=self._give_up,
        )
        self._slots = Slots(role.threads)
        self._poller = Poller(
            self._executor, self._slots, is_suspect=role.is_suspect,
            is_broker_answering=lambda: self._broker_watch.is_answering,
        )  # fmt: skip
        self._broker_watch = BrokerWatch(broker_url, on_loss=self._poller.nudge)
        self._recovery = Repeater(
            "recovery",
            lambda: recovery.recover(self._effects, self._announcer),
            interval_seconds=recovery.INTERVAL_SECONDS,
        )
        self._listener = self._bell.consume(role.queue, threads=role.threads, answer=self._answer)

    def start(self) -> None:
        """Begin."""
        self._published.start()
        self._executor.start()
        self._broker_watch.start()
        self._listener.start()
        self._poller.start()
        self._recovery.start()
        serve_health(
            self._settings.metrics_host, self._role.metrics_port, self._checks(), is_alive=self._are_all_alive
        )  # fmt: skip
        self._log.info(Log.HANDLERS_LOADED, handlers={each.name: list(each.patterns) for each in self._handlers})

    def is_alive(self) -> bool:
        """Whether every thread that takes part in the work runs, and the last poll is recent."""
        if self._is_stopping:
            return True
        beside = (self._executor, self._broker_watch, self._recovery)
        return self._poller.is_alive() and self._listener.is_alive and all(each.is_alive for each in beside)

    def stop(self, grace: Grace) -> None:
        """Take nothing new on, wait for what runs, interrupt it shortly before the grace ends, and let go of everything.

        Whatever nothing ends is given back all the same: the process must be gone right after.
        """
        self._is_stopping = True
        self._log.info(Log.STOPPING)
        self._poller.stop_claiming()
        self._slots.close()
        # Beside: it waits for handlers too, but for less time than there is (dramatiq.common.join_all takes from the time
        # that is left what was waited so far, for every thread anew).
        threading.Thread(target=self._stop_listening, args=[grace], name="stop-listening", daemon=True).start()
        if not self._slots.wait_until_free(grace.seconds_to_interrupt()):
            self._interrupt(grace)
        self._close()
        self._log.info(Log.STOPPED)

    def _wake(self, due: Doorbell) -> None:
        """Ring for an event whose turn has come; without a broker, look for it."""
        if not self._announcer.ring([due]):
            self._poller.nudge()

    def _answer(self, event_id: UUID, version: int) -> None:
        with self._slots.one() as is_taken:
            # Without a slot the process is stopping. A poll, of another process or the next one, finds the event.
            if is_taken:
                self._executor.execute(event_id, version)

    def _interrupt(self, grace: Grace) -> None:
        is_over = False
        while not is_over and grace.seconds_to_give_up():
            self._executor.interrupt()
            is_over = self._slots.wait_until_free(min(INSIST_SECONDS, grace.seconds_to_give_up()))
        if not is_over:
            self._executor.abandon()

    def _stop_listening(self, grace: Grace) -> None:
        self._listener.stop(timeout_seconds=grace.seconds_to_give_up())

    def _are_all_alive(self) -> bool:
        """Whether this process is, and every other one was lately: nobody else is asked for the health of those."""
        return self.is_alive() and (
            self._is_stopping or not self._board.missing(time.monotonic(), since=self._started_at)
        )

    def _give_up(self) -> None:
        self.is_stuck = True

    def _close(self) -> None:
        self._executor.stop()
        self._recovery.stop(timeout_seconds=1)
        self._broker_watch.stop()
        self._published.stop()
        self._bell.close()
        self._publisher.close()
        self._claims.close()
        self._effects.close()

    def _checks(self) -> dict[str, Check]:
        return {
            "database": Check(self._check_schema),
            "live": Check(self._publisher.ping, is_optional=True),
            "broker": Check(self._bell.ping, is_optional=True),
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
