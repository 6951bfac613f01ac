"""Every log event and every metric, catalogued.

Log events are the constants of :class:`Log`; a test makes sure that no service logs another text. Metrics carry bounded
labels only: never an id, a tenant or a topic.
"""

import platform
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Generic, Literal, TypeVar

from prometheus_client import Counter, Gauge, Histogram

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


class Log:
    """Names of log events, by the service that writes them."""

    # every process
    STARTED: Final = "started"
    STOPPING: Final = "stopping"
    STOPPED: Final = "stopped"
    BACKGROUND_FAILED: Final = "background duty failed; it runs again at its next turn"
    DATABASE_UNAVAILABLE: Final = "database unavailable"
    REDIS_UNAVAILABLE: Final = "redis unavailable"
    CONNECTION_LIMIT: Final = "too many connections; the one that waited longest is dropped for each new one"
    ACCEPT_FAILED: Final = "connection not accepted; file descriptors or memory are short"
    SPANS_NOT_EXPORTED: Final = "spans not exported; the collector does not take them, and they are dropped"
    SPANS_EXPORTED_AGAIN: Final = "spans are exported again"
    METRICS_PORT_TAKEN: Final = "metrics port is taken; this process serves no metrics until it is free"
    # every process that announces what was committed
    NOT_ENQUEUED: Final = "doorbells not rung; polling and redispatch find the events"
    NOT_PUBLISHED: Final = "updates not published; the relay will"
    LIVE_WINDOW_BACK: Final = "live window takes updates again"
    BROKER_BACK: Final = "broker answers again"
    # ingest
    ACCEPTED: Final = "event accepted"
    TRAFFIC: Final = "requests to accept events since the last line like this"
    REQUEST_FAILED: Final = "request failed"
    REQUEST_REJECTED: Final = "request rejected"
    REQUEST_REFUSED: Final = "request refused before it was whole; others like it within ten seconds are only counted"
    BACKLOG_TOO_OLD: Final = "backlog too old; events are turned away"
    NOT_REVOKED_AT_ONCE: Final = "tokens revoked, but Redis did not take it; gateways learn of it when it is back"
    REVOCATIONS_NOT_COPIED: Final = "revocations not copied to redis; the next turn tries again"
    SIGNED_IN: Final = "signed in to the console"
    SIGN_IN_REFUSED: Final = "sign-in to the console refused"
    BACKLOG_WORKED_OFF: Final = "backlog worked off; events are accepted again"
    # ingest and processor, whose first process looks after the others
    WORKER_ENDED: Final = "worker process ended; starting it again"
    WORKER_NOT_FORKED: Final = "a worker process cannot be forked, so the service ends"
    WORKER_KILLED: Final = "worker process outlived the grace and was killed"
    ORPHANED: Final = "the first process is gone, so this worker stops"
    # processor
    HANDLERS_LOADED: Final = "handlers loaded"
    SCHEDULES_DECLARED: Final = "schedules that handlers declare are stored"
    SCHEDULE_NOT_DECLARED: Final = "a schedule that handlers declare is not stored: its tenant has too many"
    IMPORT_TAKES_LONG: Final = "the handlers are still being imported"
    IMPORT_GIVEN_UP: Final = "importing the handlers took too long, so the process ends"
    WAITS_FOR_HANDLER: Final = "no handler here for this type; its events wait for a processor that has one"
    STALE_DOORBELL: Final = "stale doorbell"
    PROCESSED: Final = "event processed"
    ATTEMPT_FAILED: Final = "attempt failed"
    SNOOZED: Final = "put off by its handler"
    DEAD_LETTER: Final = "event is dead"
    LEASE_LOST: Final = "lease lost"
    ALREADY_PROCESSED: Final = "event was processed before"
    RELEASED: Final = "handler interrupted by the shutdown; event given back"
    BATCH_SPLIT: Final = "batch was rolled back; each of its events is tried alone"
    NOT_BEGUN: Final = "events given back that had waited for a thread"
    GIVEN_BACK: Final = "event given back after an outage of the database"
    CANCELLED: Final = "handler told to stop"
    HANDLER_STUCK: Final = "handler hangs beyond its timeout; the process has to be replaced"
    PROGRESS_NOT_TOLD: Final = "progress not told; this attempt tells no more of it"
    BROKER_LOST: Final = "broker does not answer; due events are polled for"
    POLL_FAILED: Final = "poll failed; the next one follows after a wait"
    EXECUTION_BROKE: Final = "execution broke off; the event comes back when its lease ends"
    WORKERS_MISSING: Final = "worker processes are gone or do not work, and are not back in time"
    CHILD_RETURNED: Final = "a process that a handler forked came back from the handler, and was ended"
    WORKER_BROKEN: Final = "a thread of the worker process has ended or hangs, so the process ends too"
    DRAINED: Final = "node is drained: nothing new is taken until it is undrained or restarted"
    UNDRAINED: Final = "node is undrained: events are taken again"
    WORKER_SPOILED: Final = "a handler has closed descriptors of the worker process or left none, so it ends at once"
    # maintenance
    RECOVERED: Final = "events recovered"
    REDISPATCHED: Final = "events redispatched"
    RELAYED: Final = "updates relayed"
    OUTBOX_STARTED_OVER: Final = "the outbox starts over: the database comes from a server with higher transaction ids"
    COUNTING_STARTED_OVER: Final = "counting starts over: the database comes from a server with higher transaction ids"
    REPLAYED: Final = "events replayed"
    DISCARDED: Final = "events discarded by filter"
    REVOCATIONS_COPIED: Final = "revoked tokens copied to redis"
    REPLAY_FAILED: Final = "turn of a replay failed; it is tried again after a wait"
    TICKS_MISSED: Final = "ticks of a schedule have no event: they were missed, and it says not to make up for them"
    DROPPED: Final = "events dropped by retention"
    ERASED: Final = "erasure is done"
    ERASURE_FAILED: Final = "turn of an erasure failed; it is tried again after a wait"
    SCHEDULE_FAILED: Final = "turn of a schedule failed; it is tried again after a wait"
    # gateway
    CONNECTED: Final = "client connected"
    DISCONNECTED: Final = "client disconnected"
    CLIENT_FAILED: Final = "live connection failed"
    TOO_MANY_CONNECTIONS: Final = "too many connections; new ones are turned away"
    REDIS_RESUBSCRIBED: Final = "redis connection came back; catching up"
    REVOCATIONS_MISSING: Final = "redis has no copy of the revoked tokens; no client is let in until it has"
    REVOCATIONS_BACK: Final = "redis has a copy of the revoked tokens; clients are let in again"
    KEYS_NOT_READ: Final = "key file cannot be read again; the keys read before stay"
    REDIS_FLUSHED: Final = "redis was flushed; reading every topic again"


_ATTEMPT = frozenset({"event_id", "event_type", "tenant", "attempt", "handler"})

LINE_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    Log.ACCEPTED: frozenset({"event_id", "event_type", "tenant", "request_id"}),
    Log.PROCESSED: _ATTEMPT,
    Log.ATTEMPT_FAILED: _ATTEMPT,
    Log.SNOOZED: _ATTEMPT,
    Log.DEAD_LETTER: _ATTEMPT,
    Log.LEASE_LOST: _ATTEMPT,
    Log.ALREADY_PROCESSED: _ATTEMPT,
    Log.RELEASED: _ATTEMPT,
    Log.GIVEN_BACK: _ATTEMPT,
    Log.CANCELLED: _ATTEMPT,
    Log.HANDLER_STUCK: _ATTEMPT,
    Log.PROGRESS_NOT_TOLD: _ATTEMPT,
    Log.REPLAY_FAILED: frozenset({"replay_id"}),
    Log.TICKS_MISSED: frozenset({"schedule_id"}),
    Log.SCHEDULE_FAILED: frozenset({"schedule_id"}),
    Log.ERASED: frozenset({"erasure_id"}),
    Log.ERASURE_FAILED: frozenset({"erasure_id"}),
    Log.SIGNED_IN: frozenset({"request_id", "tenant", "role"}),
    Log.SIGN_IN_REFUSED: frozenset({"request_id"}),
    Log.CONNECTED: frozenset({"tenant", "session"}),
    Log.DISCONNECTED: frozenset({"tenant", "session"}),
}
"""Ids that every line of a log event has, by its text. Beside these an attempt's line has the request and the trace of its
event, where there are any."""

LINES_ABOUT_EVENTS: Final = frozenset({
    Log.RECOVERED, Log.NOT_ENQUEUED, Log.NOT_PUBLISHED, Log.BATCH_SPLIT, Log.NOT_BEGUN,
})  # fmt: skip
"""Log events whose lines name the events that they are about: one, or the first few."""


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
        lambda: Counter("holdfast_handlers_cancelled", "Handlers told to stop: out of time, or without a lease"),
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
