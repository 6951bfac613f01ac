"""The Dramatiq and periodiq module: ``holdfast.maintenance.actors``.

Every duty runs in two ways: as an actor, each minute, by a tick that periodiq sends through Redis; and from a timer inside
the worker process, every second or so, which needs neither Redis nor the scheduler. One look a second says which sweeps
have anything to do.
"""

from collections.abc import Callable

import dramatiq
from dramatiq import Broker, Middleware, Worker
from periodiq import PeriodiqMiddleware, cron

from holdfast.domain.errors import ConfigurationError
from holdfast.maintenance import VERSION
from holdfast.maintenance.duties import Duties
from holdfast.maintenance.orphans import stop_with_master
from holdfast.maintenance.parts import REDIS_TIMEOUT_SECONDS
from holdfast.maintenance.timers import Sweeps, Timers
from holdfast.messaging.broker import redis_broker
from holdfast.runtime import logging, tracing
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


class Process(Middleware):
    """Opens connections and starts the timers in the worker process, after the fork."""

    def __init__(self, settings: MaintenanceSettings) -> None:
        self.settings = settings
        self.duties: Duties | None = None
        self._timers: Timers | None = None
        self._sweeps: Sweeps | None = None

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002 (the signature is Dramatiq's)
        """Start."""
        tracing.configure(self.settings, service="maintenance", version=VERSION)
        self.duties = duties = Duties(self.settings)
        every = self.settings.sweep_seconds
        self._sweeps = sweeps = Sweeps(duties.sweeps(), duties.due)
        self._timers = timers = Timers(
            {
                "look": (sweeps.look, every),
                "copy-revocations": (duties.copy_revocations, every),
                "prune": (duties.prune, every * PRUNE_EVERY),
                "groups": (duties.count_groups, every * PRUNE_EVERY),
                "measure": (duties.measure, every * GAUGES_EVERY),
            }
        )
        sweeps.start()
        timers.start()
        stop_with_master()
        self._serve_health(duties, lambda: timers.are_alive() and sweeps.are_alive(), worker)
        log.info(Log.STARTED)

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        """Let the turns under way end."""
        log.info(Log.STOPPING)
        for part in (self._timers, self._sweeps):
            if part is not None:
                part.stop()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        """Let go of the connections."""
        if self.duties is not None:
            self.duties.close()
        tracing.stop()
        log.info(Log.STOPPED)

    def _serve_health(self, duties: Duties, are_alive: Callable[[], bool], worker: Worker) -> None:
        serve_health(
            self.settings.metrics_host, self.settings.metrics_port, duties.checks(),
            is_alive=lambda: are_alive() and all(thread.is_alive() for thread in worker.workers),
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
    export_metrics("maintenance", version=VERSION)
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
def schedules() -> None:
    """Record the events of schedules."""
    if process.duties is not None:
        process.duties.schedules()


@dramatiq.actor(queue_name=QUEUE, periodic=cron(EVERY_MINUTE))
def retain() -> None:
    """Drop events whose time is over."""
    if process.duties is not None:
        process.duties.plan_retention()
        process.duties.retain()


@dramatiq.actor(queue_name=QUEUE, periodic=cron(EVERY_MINUTE))
def erase() -> None:
    """Go on with erasures."""
    if process.duties is not None:
        process.duties.erase()


@dramatiq.actor(queue_name=QUEUE, periodic=cron(EVERY_MINUTE))
def revocations() -> None:
    """Copy revoked tokens, and forget those that have expired."""
    if process.duties is not None:
        process.duties.copy_revocations()
        process.duties.prune_revocations()
