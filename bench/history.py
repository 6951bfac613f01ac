"""A large history, made in a minute or two: a million events as a year of use would leave them.

Plans are what they are because of how values are spread, so the spread is the point:

- ``acme`` has nine tenths of the events; ``beta``, ``devices`` and ``small`` share the rest; ``tiny`` has a hundred or so.
- 50 types, of which one is half of all events. A type comes from one of 20 sources (each device is one of its own and
  numbers its events itself, so that many devices share an id).
- 100,000 subjects and one that is half of all events; 200 audiences and one that is half of all events.
- Three events a request, and one request in ten belongs to a trace.
- One event in 2,000 is dead, of five causes; some are discarded, failed, queued or processing; some repeat others.

Ids are UUIDv7 in the order of arrival, spread over 30 days. Every event has its updates, log entry and errors.
"""

import time
from collections.abc import Callable

from holdfast.domain.state import State

__all__ = ["CAUSES", "DAYS", "Execute", "block", "cause_rows", "fall_due", "make_history"]

Execute = Callable[[str], str]
"""Runs statements (several, separated by semicolons, in one transaction) and returns what the last one prints."""

DAYS = 30

CAUSES = (
    ("book-order", "KeyError", "f1a7c2d9"),
    ("book-order", "TimeoutError", "0b8e6d11"),
    ("send-mail", "SMTPServerDisconnected", "c44f01aa"),
    ("count", "crash_loop", None),
    (None, "no_handler", None),
)
"""Handler, type and fingerprint of what kills events."""

TABLES = ("event", "processing_state", "event_update", "processed_event_log", "attempt_error")

REPLAYS = 10
"""By filter, all of them done."""

REQUEST = 3
"""Events of one POST, which have their request id in common."""

SAMPLED = 10
"""One request in so many belongs to a trace."""

CHUNK = 250_000
"""Rows a statement: bounds what a transaction keeps in memory."""

_INDEXES = """
SELECT i.indexrelid::regclass, pg_get_indexdef(i.indexrelid) FROM pg_index i
WHERE i.indrelid::regclass::text IN ({tables}) AND NOT i.indisprimary
  AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid)
"""

_PICK = """
CREATE OR REPLACE FUNCTION history_pick(n bigint, salt bigint, choices bigint) RETURNS bigint LANGUAGE sql IMMUTABLE
RETURN mod(hashint8extended(n, salt) & 9223372036854775807, choices);
"""

_PLAN = """
CREATE UNLOGGED TABLE history_plan AS
SELECT n, at,
    CAST(lpad(to_hex(CAST(extract(epoch FROM at) * 1000 AS bigint)), 12, '0') || '7' || substr(md5(n::text), 1, 3)
         || '8' || substr(md5(n::text), 4, 15) AS uuid) AS id,
    CASE WHEN history_pick(n, 1, 10000) = 0 THEN 'tiny' WHEN history_pick(n, 1, 10000) < 100 THEN 'small'
         WHEN history_pick(n, 1, 10000) < 300 THEN 'devices' WHEN history_pick(n, 1, 10000) < 1000 THEN 'beta'
         ELSE 'acme' END AS tenant,
    CASE WHEN history_pick(n, 2, 2) = 0 THEN 0 ELSE history_pick(n, 3, 50) END AS type_number,
    CASE history_pick(n, 4, 4) WHEN 0 THEN NULL WHEN 1 THEN 'subject-' || history_pick(n, 5, 100000)
         ELSE 'catalogue' END AS subject,
    CASE WHEN history_pick(n, 6, 10) = 0 THEN NULL WHEN history_pick(n, 6, 10) < 5 THEN 'user-' || history_pick(n, 7, 200)
         ELSE 'everybody' END AS audience,
    CASE WHEN history_pick(n, 8, 2000) = 0 THEN 'dead' WHEN history_pick(n, 8, 20000) = 1 THEN 'discarded'
         WHEN history_pick(n, 8, 5000) = 2 THEN 'failed' WHEN history_pick(n, 8, 5000) = 3 THEN 'queued'
         WHEN history_pick(n, 8, 50000) = 4 THEN 'processing' ELSE 'processed' END AS state,
    history_pick(n, 9, {causes}) AS cause
FROM generate_series(1, {events}) AS n,
     LATERAL (SELECT now() - interval '{days} days' * (1 - CAST(n AS float8) / {events}) AS at) AS moment
"""

_EVENT = """
INSERT INTO event (id, tenant, source, ce_id, type, subject, audience, datacontenttype, data_bytes, is_json, received_at,
                   replay_of, parent_id, request_id, trace_id)
SELECT id, tenant,
       CASE tenant WHEN 'devices' THEN '/device/' || n % 200000 ELSE '/source-' || type_number % 20 END,
       CASE tenant WHEN 'devices' THEN CAST(n / 200000 AS text) ELSE CAST(md5('ce' || n) AS text) END,
       'com.example.type-' || type_number, subject, audience, 'application/json',
       convert_to(CAST(json_build_object('n', n, 'text', repeat('x', 270)) AS text), 'UTF8'), true, at,
       CASE WHEN n % 1000 = 0 THEN lag(id, 500) OVER (ORDER BY n) END,
       CASE WHEN n % 100 = 1 THEN lag(id, 7) OVER (ORDER BY n) END,
       'request-' || lpad(CAST(n / {request} AS text), 12, '0'),
       CASE WHEN n / {request} % {sampled} = 0 THEN CAST(md5('trace' || n / {request}) AS uuid) END
FROM history_plan WHERE n BETWEEN {first} AND {last} ORDER BY n
"""

_STATE = """
INSERT INTO processing_state (event_id, state, version, attempt, available_at, next_dispatch_at, lease_token,
                              lease_expires_at, lease_owner, last_error, finished_at, lane, lane_at)
SELECT id, state, CASE state WHEN 'queued' THEN 1 WHEN 'processing' THEN 2 ELSE 3 END,
       CASE state WHEN 'queued' THEN 0 ELSE 1 END,
       CASE WHEN state IN ('queued', 'failed') THEN now() + interval '1 day' ELSE at END,
       CASE WHEN state IN ('queued', 'failed') THEN now() + interval '1 day' ELSE at END,
       CASE state WHEN 'processing' THEN gen_random_uuid() END,
       CASE state WHEN 'processing' THEN now() + interval '1 day' END,
       CASE state WHEN 'processing' THEN 'history-1' END,
       CASE WHEN state IN ('dead', 'failed') THEN c.error END,
       CASE WHEN state IN ('processed', 'dead', 'discarded') THEN at + interval '1 s' END,
       CASE WHEN subject IS NOT NULL THEN hashtextextended(subject, 0) END,
       CASE WHEN subject IS NOT NULL THEN at END
FROM history_plan LEFT JOIN ({causes}) AS c (cause, error) USING (cause)
WHERE n BETWEEN {first} AND {last} ORDER BY n
"""

_UPDATES = """
INSERT INTO event_update (event_id, version, state, attempt, at, detail, published_at)
SELECT id, version, CASE version WHEN 1 THEN 'queued' WHEN 2 THEN 'processing' ELSE state END, least(version - 1, 1), at,
       CAST(CASE WHEN version = 3 AND state = 'processed' THEN '{{"result":{{"ok":true}}}}' ELSE '{{}}' END AS jsonb), at
FROM history_plan, generate_series(1, CASE state WHEN 'queued' THEN 1 WHEN 'processing' THEN 2 ELSE 3 END) AS version
WHERE n BETWEEN {first} AND {last} ORDER BY n, version
"""

_LOG = """
INSERT INTO processed_event_log (event_id, handler, attempt, lease_token, result, duration_ms, processed_at)
SELECT id, 'book-order', 1, gen_random_uuid(), '{{"ok":true}}', 7, at + interval '1 s'
FROM history_plan WHERE state = 'processed' AND n BETWEEN {first} AND {last} ORDER BY n
"""

_ERRORS = """
INSERT INTO attempt_error (event_id, attempt, handler, error_type, message, fingerprint, at)
SELECT id, 1, error->>'handler', error->>'type', error->>'message', error->>'fingerprint', at + interval '1 s'
FROM history_plan JOIN ({causes}) AS c (cause, error) USING (cause)
WHERE state IN ('dead', 'failed') AND n BETWEEN {first} AND {last}
"""

_REPLAY = """
WITH job AS (
    INSERT INTO replay_job (id, tenant, idempotency_key, created_by, filter, rate_per_s, total, replayed, skipped, state,
                            finished_at)
    SELECT gen_random_uuid(), 'acme', 'history-' || n, 'history', '{{"state": "processed"}}', 20, 1000, 1000, 0, 'done', now()
    FROM generate_series(1, {replays}) AS n RETURNING id
)
INSERT INTO replay_item (job_id, event_id, version, outcome, new_event_id, done_at)
SELECT job.id, copy.replay_of, 3, 'replayed', copy.id, now()
FROM job, LATERAL (SELECT id, replay_of FROM event WHERE replay_of IS NOT NULL LIMIT 1000) AS copy
"""

_PUBLISHED = """
UPDATE outbox_cursor SET confirmed = CAST(pg_current_snapshot() AS text), until = CAST(pg_current_snapshot() AS text),
    until_at = now()
"""
"""All of a history was told long ago."""

_BLOCKED = """
WITH made AS (
    INSERT INTO event (id, tenant, source, ce_id, type, subject, data_bytes, is_json)
    SELECT CAST(lpad(to_hex(CAST(extract(epoch FROM now()) * 1000 AS bigint)), 12, '0') || '7' || substr(md5('b' || n), 1, 3)
                || '8' || substr(md5('b' || n), 4, 15) AS uuid),
           'acme', '/blocked', 'blocked-' || n, 'com.example.ordered', 'lane-' || n % {lanes},
           convert_to(CAST(json_build_object('n', n) AS text), 'UTF8'), true
    FROM generate_series(1, {events}) AS n
    RETURNING id, ce_id, subject
), placed AS (
    SELECT id, subject, CAST(substr(ce_id, 9) AS int) AS n, CAST(substr(ce_id, 9) AS int) <= {lanes} AS is_first FROM made
)
INSERT INTO processing_state (event_id, state, version, attempt, available_at, next_dispatch_at, lane, lane_key, lane_at,
                              waiting_since)
SELECT id, CASE WHEN is_first THEN '{failed}' ELSE '{queued}' END, CASE WHEN is_first THEN 3 ELSE 1 END,
       CASE WHEN is_first THEN 1 ELSE 0 END, now() + interval '1 hour', now() + interval '1 hour',
       hashtextextended(subject, 0), CAST(md5(subject) AS uuid), now() - interval '1 day' + make_interval(secs => n),
       CASE WHEN NOT is_first THEN now() - interval '1 minute' END
FROM placed
"""

_DUE = """
WITH newest AS (
    SELECT event_id FROM processing_state WHERE state = 'processed' ORDER BY event_id DESC LIMIT {events}
), undone AS (
    DELETE FROM processed_event_log l USING newest WHERE l.event_id = newest.event_id
)
UPDATE processing_state s SET state = 'queued', version = version + 1, attempt = 0, finished_at = NULL,
    available_at = now() - interval '1 minute', next_dispatch_at = now() - interval '1 minute'
FROM newest WHERE s.event_id = newest.event_id
"""


def make_history(
    execute: Execute, events: int, *, is_analyzed: bool = True, say: Callable[[str], object] = lambda _: None
) -> None:
    """Fill an empty migrated database. The role has to be a superuser: references are not checked while rows come in.

    ``is_analyzed=False`` leaves the planner's statistics as they were, which is: of empty tables.

    Indexes that no constraint needs are made when the rows are there, which is several times as fast.
    """
    began = time.monotonic()
    indexes = _without_indexes(execute)
    _run(execute, _PICK, _PLAN.format(events=events, days=DAYS, causes=len(CAUSES)))
    for first in range(1, events + 1, CHUNK):
        part = {
            "first": first, "last": min(first + CHUNK - 1, events), "causes": cause_rows(), "request": REQUEST,
            "sampled": SAMPLED,
        }  # fmt: skip
        _run(execute, *(each.format(**part) for each in (_EVENT, _STATE, _UPDATES, _LOG, _ERRORS)))
        say(f"{part['last']:,} events after {time.monotonic() - began:.0f} s")
    _run(execute, _REPLAY.format(replays=REPLAYS), "DROP TABLE history_plan", *indexes)
    execute(_PUBLISHED)
    if is_analyzed:
        execute("VACUUM ANALYZE")
    say(f"a history of {events:,} events after {time.monotonic() - began:.0f} s")


def block(execute: Execute, events: int, *, lanes: int = 50) -> None:
    """Add ordered events that wait behind the first one of their lanes, which has failed and is tried again in an hour."""
    parts = {"failed": State.FAILED, "queued": State.QUEUED}
    execute(_BLOCKED.format(events=events, lanes=lanes, **parts))


def fall_due(execute: Execute, events: int) -> None:
    """Make the newest processed events due, all at once, without telling the planner's statistics."""
    execute(_DUE.format(events=events))


def _run(execute: Execute, *statements: str) -> None:
    execute("; ".join(["SET session_replication_role = replica", *statements]))


def _without_indexes(execute: Execute) -> list[str]:
    """Drop the indexes that belong to no constraint; returns how to make them again."""
    tables = ", ".join(f"'{table}'" for table in TABLES)
    named = [line.split("\t") for line in execute(_INDEXES.format(tables=tables)).splitlines()]
    if named:
        execute("DROP INDEX " + ", ".join(name for name, _ in named))
    return [definition for _, definition in named]


def cause_rows() -> str:
    """Rows of number and ``last_error``, as SQL."""

    def literal(value: str | None) -> str:
        return "NULL" if value is None else f"'{value}'"

    rows = (
        f"({number}, jsonb_build_object('type', {literal(type_)}, 'message', 'it was not there', 'reason', NULL,"
        f" 'handler', {literal(handler)}, 'fingerprint', {literal(fingerprint)}, 'duration_ms', 7))"
        for number, (handler, type_, fingerprint) in enumerate(CAUSES)
    )
    return "VALUES " + ", ".join(rows)
