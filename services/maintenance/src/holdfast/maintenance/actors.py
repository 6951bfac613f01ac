"""The Dramatiq and periodiq module: ``holdfast.maintenance.actors``.

Every duty runs in two ways: as an actor, each minute, by a tick that periodiq sends through Redis; and from a timer inside
the worker process, every second or so, which needs neither Redis nor the scheduler.
"""

import multiprocessing
import os
import signal

import dramatiq
from dramatiq import Broker, Middleware, Worker
from periodiq import PeriodiqMiddleware, cron

from holdfast.domain.errors import ConfigurationError
from holdfast.maintenance import VERSION
from holdfast.maintenance.duties import Duties
from holdfast.maintenance.parts import REDIS_TIMEOUT_SECONDS
from holdfast.maintenance.timers import Timers
from holdfast.messaging.broker import redis_broker
from holdfast.runtime import logging
from holdfast.runtime.background import Repeater
from holdfast.runtime.health import serve_health
from holdfast.runtime.refusal import refuse
from holdfast.runtime.settings import MaintenanceSettings, load
from holdfast.runtime.telemetry import Log, export_metrics

log = logging.get(__name__)

QUEUE = "maintenance"

EVERY_MINUTE = "* * * * *"

SKIP_DELAY_SECONDS = 120
"""Age at which a tick is dropped. periodiq's default of 30 s would let a busy worker skip its duty without a word."""

GAUGES_EVERY = 10
"""Sweeps per measurement: counting is dearer than sweeping, and scrapes are seconds apart."""

PRUNE_EVERY = 60
"""Sweeps between two looks for what can be forgotten, none of which is in a hurry."""

LOOK_SECONDS = 1.0
"""How soon an orphan notices that it is one."""


class Process(Middleware):
    """Opens connections and starts the timers in the worker process, after the fork."""

    def __init__(self, settings: MaintenanceSettings) -> None:
        self.settings = settings
        self.duties: Duties | None = None
        self._timers: Timers | None = None
        self._is_told = False
        self._parent = Repeater("parent-watch", self._stop_if_orphan, interval_seconds=LOOK_SECONDS)

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002 (the signature is Dramatiq's)
        """Start."""
        self.duties = duties = Duties(self.settings)
        every = self.settings.sweep_seconds
        self._timers = timers = Timers(
            {
                "recover": (duties.recover, every),
                "redispatch": (duties.redispatch, every),
                "relay": (duties.relay, every),
                "replay": (duties.replay, every),
                "copy-revocations": (duties.copy_revocations, every),
                "prune-revocations": (duties.prune_revocations, every * PRUNE_EVERY),
                "measure": (duties.measure, every * GAUGES_EVERY),
            }
        )
        timers.start()
        self._parent.start()
        self._serve_health(duties, timers, worker)
        log.info(Log.STARTED)

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        """Let the turns under way end."""
        log.info(Log.STOPPING)
        if self._timers is not None:
            self._timers.stop()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        """Let go of the connections."""
        if self.duties is not None:
            self.duties.close()
        log.info(Log.STOPPED)

    def _stop_if_orphan(self) -> None:
        """Dramatiq's workers go on when their master was killed: beside their successors, with their port, for ever."""
        master = multiprocessing.parent_process()
        if master is not None and os.getppid() != master.pid and not self._is_told:
            self._is_told = True  # a second signal would end the process in the middle of its stop
            os.kill(os.getpid(), signal.SIGTERM)

    def _serve_health(self, duties: Duties, timers: Timers, worker: Worker) -> None:
        serve_health(
            self.settings.metrics_host, self.settings.metrics_port, duties.checks(),
            is_alive=lambda: timers.are_alive() and all(thread.is_alive() for thread in worker.workers),
        )  # fmt: skip


def _setup() -> Process:
    try:
        settings = load(MaintenanceSettings)
    except ConfigurationError as exc:
        refuse(exc)
    logging.configure(
        service="maintenance", version=VERSION, log_format=settings.log_format, level=settings.log_level,
        with_error_texts=settings.log_error_texts,
    )  # fmt: skip
    export_metrics("maintenance")
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


@dramatiq.actor(queue_name=QUEUE, periodic=cron(EVERY_MINUTE))
def replay() -> None:
    """Work off replays by filter."""
    if process.duties is not None:
        process.duties.replay()


@dramatiq.actor(queue_name=QUEUE, periodic=cron(EVERY_MINUTE))
def revocations() -> None:
    """Copy revoked tokens, and forget those that have expired."""
    if process.duties is not None:
        process.duties.copy_revocations()
        process.duties.prune_revocations()
