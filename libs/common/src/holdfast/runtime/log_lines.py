"""Log events of all services: their texts, and the ids that their lines have."""

from collections.abc import Mapping
from typing import Final

__all__ = ["LINES_ABOUT_EVENTS", "LINE_FIELDS", "Log"]


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
    # every process that reads data of events
    KEY_MISSING: Final = "data is sealed under a key that this process lacks"
    DATA_UNREADABLE: Final = "sealed data does not open; it was changed, or its data key dropped"
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
    EVENT_CANCELLED: Final = "event cancelled by an operator"
    CANCELLED_UNREACHED: Final = "event cancelled by an operator; its handler hangs in a call that nothing ends"
    SLEEPING: Final = "sleeps between two steps"
    SLEEP_NOT_LET_OUT: Final = (
        "the handler kept what ctx.sleep raised to itself; the event sleeps all the same, let it out"
    )
    DEAD_LETTER: Final = "event is dead"
    LEASE_LOST: Final = "lease lost"
    ALREADY_PROCESSED: Final = "event was processed before"
    RELEASED: Final = "handler interrupted by the shutdown; event given back"
    BATCH_SPLIT: Final = "batch was rolled back; each of its events is tried alone"
    NOT_BEGUN: Final = "events given back that had waited for a thread"
    GIVEN_BACK: Final = "event given back after an outage of the database"
    CANCELLED: Final = "handler told to stop"
    HANDLER_STUCK: Final = "handler hangs beyond its timeout; the process has to be replaced"
    FANNED_OUT: Final = "events made for further handlers"
    LOOP_BLOCKED: Final = "a handler blocks the event loop; every other async def handler of the process waits"
    LOOP_TASK_FAILED: Final = "a task that a handler left to the event loop has failed"
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
    Log.EVENT_CANCELLED: _ATTEMPT,
    Log.CANCELLED_UNREACHED: _ATTEMPT,
    Log.SLEEPING: _ATTEMPT,
    Log.SLEEP_NOT_LET_OUT: _ATTEMPT,
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
    Log.RECOVERED, Log.NOT_ENQUEUED, Log.NOT_PUBLISHED, Log.BATCH_SPLIT, Log.NOT_BEGUN, Log.FANNED_OUT,
})  # fmt: skip
"""Log events whose lines name the events that they are about: one, or the first few."""
