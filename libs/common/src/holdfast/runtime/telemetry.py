"""Every log event and every metric, catalogued.

Log events are the constants of :class:`Log`; a test makes sure that no service logs another text. Metrics carry bounded
labels only: never an id, a tenant or a topic.
"""

from typing import Final, Literal

from prometheus_client import Counter, Gauge, Histogram

__all__ = ["Log", "Metrics"]

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
    METRICS_PORT_TAKEN: Final = "metrics port is taken; this process serves no metrics until it is free"
    # ingest
    REQUEST_FAILED: Final = "request failed"
    REQUEST_REJECTED: Final = "request rejected"
    REQUEST_REFUSED: Final = "request refused before it was whole; others like it within ten seconds are only counted"
    NOT_ENQUEUED: Final = "event recorded but not enqueued"
    NOT_PUBLISHED: Final = "update not published; the relay will"
    BACKLOG_TOO_OLD: Final = "backlog too old; events are turned away"
    BACKLOG_WORKED_OFF: Final = "backlog worked off; events are accepted again"
    # processor
    HANDLERS_LOADED: Final = "handlers loaded"
    STALE_DOORBELL: Final = "stale doorbell"
    PROCESSED: Final = "event processed"
    ATTEMPT_FAILED: Final = "attempt failed"
    DEAD_LETTER: Final = "event is dead"
    LEASE_LOST: Final = "lease lost"
    ALREADY_PROCESSED: Final = "event was processed before"
    RELEASED: Final = "handler interrupted by the shutdown; event given back"
    GIVEN_BACK: Final = "event given back after an outage of the database"
    CANCELLED: Final = "handler told to stop"
    HANDLER_STUCK: Final = "handler hangs beyond its timeout; the process has to be replaced"
    PROGRESS_NOT_TOLD: Final = "progress not told; this attempt tells no more of it"
    BROKER_LOST: Final = "broker does not answer; due events are polled for"
    BROKER_BACK: Final = "broker answers again"
    POLL_FAILED: Final = "poll failed; the next one follows after a wait"
    EXECUTION_BROKE: Final = "execution broke off; the event comes back when its lease ends"
    WORKER_ENDED: Final = "worker process ended; starting it again"
    WORKER_NOT_FORKED: Final = "a worker process can not be forked, so the service ends"
    WORKER_KILLED: Final = "worker process outlived the grace and was killed"
    WORKER_BROKEN: Final = "a thread of the worker process has ended or hangs, so the process ends too"
    ORPHANED: Final = "the first process is gone, so this worker stops"
    # maintenance
    RECOVERED: Final = "events recovered"
    REDISPATCHED: Final = "events redispatched"
    RELAYED: Final = "updates relayed"
    REPLAYED: Final = "events replayed"
    # gateway
    CONNECTED: Final = "client connected"
    DISCONNECTED: Final = "client disconnected"
    CLIENT_FAILED: Final = "live connection failed"
    REDIS_RESUBSCRIBED: Final = "redis connection came back; catching up"
    REDIS_FLUSHED: Final = "redis was flushed; reading every topic again"


class Metrics:
    """Metrics, by the service that moves them. Importing this registers them all; unmoved ones read zero."""

    # ingest
    received = Counter("holdfast_events_received", "Answers to POST /v1/events", ["outcome"])
    refused = Counter("holdfast_ingest_refused", "Requests that ended before they were whole", ["code"])
    ingest_seconds = Histogram("holdfast_ingest_duration_seconds", "POST /v1/events, whole request", buckets=_FAST)
    enqueue_failures = Counter(
        "holdfast_enqueue_failures", "Doorbells or updates that Redis did not take after a commit"
    )
    turning_away = Gauge(
        "holdfast_ingest_turning_away", "1 while the backlog is too old and events are answered with 503",
        multiprocess_mode=_MODE,
    )  # fmt: skip
    # processor
    handler_seconds = Histogram(
        "holdfast_handler_duration_seconds", "Handler run time", ["handler", "outcome"], buckets=_FAST
    )
    end_to_end_seconds = Histogram(
        "holdfast_end_to_end_seconds", "From received to processed", buckets=(*_FAST, 60, 300)
    )
    stale_doorbells = Counter("holdfast_stale_doorbells", "Doorbells that found nothing to claim")
    polled = Counter("holdfast_events_polled", "Events that a processor found by itself, without a doorbell")
    lost_leases = Counter("holdfast_lost_leases", "Attempts whose event had been given to another worker")
    cancelled = Counter("holdfast_handlers_cancelled", "Handlers told to stop: out of time, or without a lease")
    retries = Counter("holdfast_retries", "Failed attempts that will be tried again", ["handler"])
    dead_letters = Counter("holdfast_dead_letters", "Events that became dead letters", ["reason"])
    # maintenance
    recovered = Counter("holdfast_events_recovered", "Expired leases taken away", ["to_state"])
    redispatched = Counter("holdfast_events_redispatched", "Doorbells rung again for due events")
    relayed = Counter("holdfast_updates_relayed", "Updates published by the relay")
    replayed = Counter("holdfast_replay_items", "Events of replays by filter", ["outcome"])
    pending = Gauge("holdfast_events_pending", "Open events by state", ["state"], multiprocess_mode=_MODE)
    oldest_due_seconds = Gauge(
        "holdfast_oldest_due_age_seconds", "Age of the oldest event that is due and not claimed",
        multiprocess_mode=_MODE,
    )  # fmt: skip
    # gateway
    connections = Gauge("holdfast_live_connections", "Open live connections", multiprocess_mode=_MODE)
    delivered = Counter("holdfast_updates_delivered", "Update frames handed to connections")
    gaps = Counter("holdfast_live_gaps", "Subscriptions told of a gap", ["reason"])
    closed = Counter("holdfast_live_closed", "Live connections closed, by close code", ["code"])
