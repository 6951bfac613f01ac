"""The Dramatiq and periodiq module: ``holdfast.maintenance.actors``.

Every duty runs in two ways: as an actor, each minute, by a tick that periodiq sends through Redis; and from a timer inside
the worker process, every second or so, which needs neither Redis nor the scheduler.
"""

import sys

import dramatiq
from dramatiq import Middleware, Worker
from dramatiq.broker import Broker
from periodiq import PeriodiqMiddleware, cron

from holdfast.domain.errors import ConfigurationError
from holdfast.maintenance import VERSION
from holdfast.maintenance.duties import REDIS_TIMEOUT_SECONDS, Duties
from holdfast.messaging.broker import DoorbellBroker, redis_broker
from holdfast.runtime import logging
from holdfast.runtime.background import Repeater
from holdfast.runtime.health import Check, serve_health
from holdfast.runtime.settings import MaintenanceSettings, load
from holdfast.runtime.telemetry import Log
from holdfast.storage.schema import check_revision

log = logging.get(__name__)

QUEUE = "maintenance"

EVERY_MINUTE = "* * * * *"

SKIP_DELAY_SECONDS = 120
"""Age at which a tick is dropped. periodiq's default of 30 s would let a busy worker skip its duty without a word."""

GAUGES_EVERY = 10
"""Sweeps per measurement: counting is dearer than sweeping, and scrapes are seconds apart."""


class Process(Middleware):
    """Opens connections and starts the timers in the worker process, after the fork."""

    def __init__(self, settings: MaintenanceSettings) -> None:
        self.settings = settings
        self.duties: Duties | None = None
        self._timers: list[Repeater] = []

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Start."""
        self.duties = duties = Duties(self.settings, _doorbell_broker(broker))
        every = self.settings.sweep_seconds
        self._timers = [
            Repeater("recover", duties.recover, interval_seconds=every),
            Repeater("redispatch", duties.redispatch, interval_seconds=every),
            Repeater("relay", duties.relay, interval_seconds=every),
            Repeater("measure", duties.measure, interval_seconds=every * GAUGES_EVERY),
        ]
        for timer in self._timers:
            timer.start()
        self._serve_health(duties, broker, worker)
        log.info(Log.STARTED)

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        """Let the turns under way finish."""
        for timer in self._timers:
            timer.stop()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        """Let go of the connections."""
        if self.duties is not None:
            self.duties.close()
        log.info(Log.STOPPED)

    def _serve_health(self, duties: Duties, broker: Broker, worker: Worker) -> None:
        def check_schema() -> None:
            with duties.database.transaction() as session:
                check_revision(session)

        checks = {
            "database": Check(check_schema),
            "live": Check(duties.live.ping, is_optional=True),
            "broker": Check(_doorbell_broker(broker).client.ping, is_optional=True),
        }
        serve_health(
            self.settings.metrics_host, self.settings.metrics_port, checks,
            is_alive=lambda: all(thread.is_alive for thread in self._timers)
            and all(thread.is_alive() for thread in worker.workers),
        )  # fmt: skip


def _doorbell_broker(broker: Broker) -> DoorbellBroker:
    if not isinstance(broker, DoorbellBroker):
        raise TypeError("maintenance runs on a DoorbellBroker")
    return broker


def _setup() -> Process:
    try:
        settings = load(MaintenanceSettings)
    except ConfigurationError as exc:
        sys.exit(str(exc))
    logging.configure(
        service="maintenance", version=VERSION, log_format=settings.log_format, level=settings.log_level
    )  # fmt: skip
    process = Process(settings)
    dramatiq.set_broker(
        redis_broker(
            settings.broker_url.get_secret_value(),
            timeout_seconds=REDIS_TIMEOUT_SECONDS,
            is_consumer=True,
            middleware=[PeriodiqMiddleware(skip_delay=SKIP_DELAY_SECONDS), process],
        )
    )
    return process


process = _setup()


@dramatiq.actor(queue_name=QUEUE, periodic=cron(EVERY_MINUTE))
def recover() -> None:
    """Take expired leases away."""
    if process.duties is not None:
        process.duties.recover()


@dramatiq.actor(queue_name=QUEUE, periodic=cron(EVERY_MINUTE))
def redispatch() -> None:
    """Ring again for due events."""
    if process.duties is not None:
        process.duties.redispatch()


@dramatiq.actor(queue_name=QUEUE, periodic=cron(EVERY_MINUTE))
def relay() -> None:
    """Publish what is left in the outbox."""
    if process.duties is not None:
        process.duties.relay()
