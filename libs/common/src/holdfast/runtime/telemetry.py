"""Every log event and every metric, catalogued.

Log events are the constants of :class:`Log`; a test makes sure that no service logs another text. Metrics carry bounded
labels only: never an id, a tenant or a topic.
"""

import platform
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Generic, Literal, TypeVar

from prometheus_client import Counter, Gauge, Histogram

from holdfast.runtime.log_lines import LINE_FIELDS, LINES_ABOUT_EVENTS, Log

__all__ = [
    "LINES_ABOUT_EVENTS",
    "LINE_FIELDS",
    "Declared",
    "Log",
    "Metrics",
    "Service",
    "declared_metrics",
    "export_handlers",
    "export_metrics",
]

Metric = TypeVar("Metric", Counter, Gauge, Histogram)

Service = Literal["ingest", "processor", "maintenance", "gateway"]
INGEST: Final = "ingest"
PROCESSOR: Final = "processor"
MAINTENANCE: Final = "maintenance"
GATEWAY: Final = "gateway"

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

_MODE: Literal["sum"] = "sum"
"""How processes that share their metrics add a gauge up; the default would be a series for each process."""


class Declared(Generic[Metric]):
    """A metric that is made, and so exported, in the processes of the services that move it.

    A service that exports a metric which it never moves says zero where it should say nothing: an alert on it would be
    quiet for ever, and a sum over all services wrong once one of them is asked twice.
    """

    def __init__(self, services: tuple[Service, ...], make: Callable[[], Metric]) -> None:
        self.services = services
        self._make: Callable[[], Metric] = make
        self._made: Metric | None = None
        self._lock = threading.Lock()

    def __get__(self, _: object, owner: type) -> Metric:
        if self._made is not None:  # it never changes again, and hot paths come here for every event
            return self._made
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made


class Metrics:
    """Metrics, by the services that move them. One is made when it is first used, or by :func:`export_metrics`."""

    # every service
    build_info = Declared(
        (INGEST, PROCESSOR, MAINTENANCE, GATEWAY),
        lambda: Gauge(
            "holdfast_build_info", "1; its labels say what runs", ["version", "python"], multiprocess_mode="max"
        ),
    )
    # ingest, processor, maintenance
    connections_in_use = Declared(
        (INGEST, PROCESSOR, MAINTENANCE),
        lambda: Gauge(
            "holdfast_database_connections_in_use", "Pooled connections that a thread has now", multiprocess_mode=_MODE
        ),
    )
    connections_most = Declared(
        (INGEST, PROCESSOR, MAINTENANCE),
        lambda: Gauge("holdfast_database_connections_limit", "…and that there may be", multiprocess_mode=_MODE),
    )
    # ingest
    received = Declared(
        (INGEST,), lambda: Counter("holdfast_events_received", "Answers to POST /v1/events", ["outcome"])
    )
    refused = Declared(
        (INGEST,), lambda: Counter("holdfast_ingest_refused", "Requests that ended before they were whole", ["code"])
    )
    ingest_seconds = Declared(
        (INGEST,),
        lambda: Histogram("holdfast_ingest_duration_seconds", "POST /v1/events, whole request", buckets=_FAST),
    )
    in_flight = Declared(
        (INGEST,),
        lambda: Gauge(
            "holdfast_ingest_in_flight", "Requests that are whole and not answered yet", multiprocess_mode=_MODE
        ),
    )
    group_size = Declared(
        (INGEST,),
        lambda: Histogram(
            "holdfast_ingest_group_size",
            "Events recorded in one transaction",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
        ),
    )
    # ingest, processor, maintenance
    enqueue_failures = Declared(
        (INGEST, PROCESSOR, MAINTENANCE),
        lambda: Counter("holdfast_enqueue_failures", "Doorbells or updates that Redis did not take after a commit"),
    )
    # ingest
    turning_away = Declared(
        (INGEST,),
        lambda: Gauge(
            "holdfast_ingest_turning_away",
            "1 while the backlog is too old and events are answered with 503",
            multiprocess_mode="max",
        ),
    )
    # ingest, processor
    superseded = Declared(
        (INGEST, PROCESSOR),
        lambda: Counter("holdfast_events_superseded", "Waiting events that a later one of their key replaced"),
    )
    # processor
    handler_seconds = Declared(
        (PROCESSOR,),
        lambda: Histogram(
            "holdfast_handler_duration_seconds", "Handler run time", ["handler", "outcome"], buckets=_FAST
        ),
    )
    end_to_end_seconds = Declared(
        (PROCESSOR,),
        lambda: Histogram(
            "holdfast_end_to_end_seconds", "From received to processed", ["handler"], buckets=(*_FAST, 60, 300)
        ),
    )
    queue_wait_seconds = Declared(
        (PROCESSOR,),
        lambda: Histogram(
            "holdfast_queue_wait_seconds",
            "From received to claimed, of first attempts",
            ["handler"],
            buckets=(*_FAST, 60, 300),
        ),
    )
    slots_busy = Declared(
        (PROCESSOR,),
        lambda: Gauge("holdfast_slots_busy", "Threads that are taken by an event", multiprocess_mode=_MODE),
    )
    slots_total = Declared((PROCESSOR,), lambda: Gauge("holdfast_slots", "Threads for events", multiprocess_mode=_MODE))
    async_running = Declared(
        (PROCESSOR,),
        lambda: Gauge("holdfast_async_running", "Events of async def handlers at work", multiprocess_mode=_MODE),
    )
    async_limit = Declared(
        (PROCESSOR,), lambda: Gauge("holdfast_async_limit", "…and that there may be", multiprocess_mode=_MODE)
    )
    loop_blocked = Declared(
        (PROCESSOR,),
        lambda: Counter(
            "holdfast_event_loop_blocked", "Times that a handler kept the event loop for long", ["handler"]
        ),
    )
    stale_doorbells = Declared(
        (PROCESSOR,), lambda: Counter("holdfast_stale_doorbells", "Doorbells that found nothing to claim")
    )
    polled = Declared(
        (PROCESSOR,),
        lambda: Counter("holdfast_events_polled", "Events that a processor found by itself, without a doorbell"),
    )
    lost_leases = Declared(
        (PROCESSOR,), lambda: Counter("holdfast_lost_leases", "Attempts whose event had been given to another worker")
    )
    cancelled = Declared(
        (PROCESSOR,),
        lambda: Counter(
            "holdfast_handlers_cancelled", "Handlers told to stop: out of time, without a lease, or cancelled"
        ),
    )
    steps = Declared(
        (PROCESSOR,),
        lambda: Counter(
            "holdfast_steps",
            "Steps and sleeps of handlers, stored or taken from an attempt before",
            ["handler", "outcome"],
        ),
    )
    retries = Declared(
        (PROCESSOR,), lambda: Counter("holdfast_retries", "Failed attempts that will be tried again", ["handler"])
    )
    dead_letters = Declared(
        (PROCESSOR,), lambda: Counter("holdfast_dead_letters", "Events that became dead letters", ["handler", "reason"])
    )
    # processor, maintenance
    recovered = Declared(
        (PROCESSOR, MAINTENANCE),
        lambda: Counter("holdfast_events_recovered", "Expired leases taken away", ["to_state"]),
    )
    # maintenance
    redispatched = Declared(
        (MAINTENANCE,), lambda: Counter("holdfast_events_redispatched", "Doorbells rung again for due events")
    )
    relayed = Declared((MAINTENANCE,), lambda: Counter("holdfast_updates_relayed", "Updates published by the relay"))
    counted = Declared((MAINTENANCE,), lambda: Counter("holdfast_updates_counted", "Updates added to the statistics"))
    replayed = Declared(
        (MAINTENANCE,),
        lambda: Counter("holdfast_replay_items", "Events of replays and discards by filter", ["outcome"]),
    )
    events_dropped = Declared((MAINTENANCE,), lambda: Counter("holdfast_events_dropped", "Events dropped by retention"))
    events_erased = Declared((MAINTENANCE,), lambda: Counter("holdfast_events_erased", "Events erased on request"))
    erasure_failures = Declared(
        (MAINTENANCE,), lambda: Counter("holdfast_erasure_failures", "Turns of erasures that ended with an exception")
    )
    schedule_ticks = Declared(
        (MAINTENANCE,), lambda: Counter("holdfast_schedule_ticks", "Ticks of schedules", ["outcome"])
    )
    schedule_lateness_seconds = Declared(
        (MAINTENANCE,),
        lambda: Histogram(
            "holdfast_schedule_lateness_seconds",
            "From a tick to its event",
            buckets=(0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 21600, 86400),
        ),
    )
    pending = Declared(
        (MAINTENANCE,),
        lambda: Gauge("holdfast_events_pending", "Open events by state", ["state"], multiprocess_mode=_MODE),
    )
    oldest_due_seconds = Declared(
        (MAINTENANCE,),
        lambda: Gauge(
            "holdfast_oldest_due_age_seconds",
            "Age of the oldest event that is due and not claimed",
            multiprocess_mode=_MODE,
        ),
    )
    # gateway
    connections = Declared(
        (GATEWAY,), lambda: Gauge("holdfast_live_connections", "Open live connections", multiprocess_mode=_MODE)
    )
    delivered = Declared(
        (GATEWAY,), lambda: Counter("holdfast_updates_delivered", "Update frames handed to connections")
    )
    gaps = Declared((GATEWAY,), lambda: Counter("holdfast_live_gaps", "Subscriptions told of a gap", ["reason"]))
    turned_away = Declared(
        (GATEWAY,),
        lambda: Counter("holdfast_live_connections_refused", "Connections turned away because there were too many"),
    )
    closed = Declared(
        (GATEWAY,), lambda: Counter("holdfast_live_closed", "Live connections closed, by close code", ["code"])
    )


def declared_metrics() -> Mapping[str, Declared[Any]]:
    """Every metric of the catalogue by its name in :class:`Metrics`."""
    return {name: value for name, value in vars(Metrics).items() if isinstance(value, Declared)}


def export_handlers(names: Iterable[str]) -> None:
    """Export the counts of these handlers as zero before they run for the first time: of a series that begins with its first
    events Prometheus sees no increase.
    """
    for name in names:
        for by_handler in (Metrics.end_to_end_seconds, Metrics.queue_wait_seconds, Metrics.retries):
            by_handler.labels(name)
        for outcome in ("processed", "failed"):
            Metrics.handler_seconds.labels(name, outcome)


def export_metrics(service: Service, *, version: str) -> None:
    """Make the metrics of this service, so that each is exported as zero before it moves for the first time."""
    Metrics.build_info.labels(version, platform.python_version()).set(1)
    for name, declared in declared_metrics().items():
        if service in declared.services:
            getattr(Metrics, name)
