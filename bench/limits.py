"""What PostgreSQL alone does with the same rows: pgbench on the stack's own server and schema."""

import re
from pathlib import Path

import redis

from holdfast.local.stack import Stack

__all__ = [
    "SEED", "claim_and_settle", "claim_and_settle_many", "claim_insert_and_settle", "clear", "record", "record_in_a_loop",
    "record_many",
]  # fmt: skip

CLIENTS = 8

RECORD = r"""
\set n random(1, 1000000000000)
BEGIN;
INSERT INTO event (id, tenant, source, ce_id, type, data_bytes, is_json)
VALUES (gen_random_uuid(), 'pgbench', '/bench', gen_random_uuid()::text, 'bench.pgbench',
        convert_to('{"n": :n, "text": "' || repeat('x', 400) || '"}', 'UTF8'), true)
RETURNING id AS id \gset
INSERT INTO processing_state (event_id, state, version, available_at, next_dispatch_at)
VALUES (':id', 'queued', 1, now(), now() + interval '1 hour');
INSERT INTO event_update (event_id, version, state, attempt, at, published_at)
VALUES (':id', 1, 'queued', 0, now(), now());
COMMIT;
"""

RECORD_MANY = """
WITH made AS (
    INSERT INTO event (id, tenant, source, ce_id, type, data_bytes, is_json)
    SELECT gen_random_uuid(), 'pgbench', '/bench', gen_random_uuid()::text, 'bench.pgbench',
           convert_to(json_build_object('n', n, 'text', repeat('x', 400))::text, 'UTF8'), true
    FROM generate_series(1, {batch}) AS n RETURNING id
), queued AS (
    INSERT INTO processing_state (event_id, state, version, available_at, next_dispatch_at)
    SELECT id, 'queued', 1, now(), now() + interval '1 hour' FROM made
)
INSERT INTO event_update (event_id, version, state, attempt, at, published_at)
SELECT id, 1, 'queued', 0, now(), now() FROM made;
"""

CLAIM_AND_SETTLE = r"""
SET synchronous_commit = off;
WITH due AS (
    SELECT event_id FROM processing_state WHERE state = 'queued' ORDER BY next_dispatch_at LIMIT 1
    FOR NO KEY UPDATE SKIP LOCKED
), claimed AS (
    UPDATE processing_state s SET state = 'processing', version = version + 1, attempt = attempt + 1,
        lease_token = gen_random_uuid(), lease_expires_at = now() + interval '30 seconds'
    FROM due WHERE s.event_id = due.event_id RETURNING s.event_id, s.version, s.attempt
), history AS (
    INSERT INTO event_update (event_id, version, state, attempt, at, published_at)
    SELECT event_id, version, 'processing', attempt, now(), now() FROM claimed
)
SELECT event_id AS id FROM claimed \gset
SET synchronous_commit = on;
WITH settled AS (
    UPDATE processing_state SET state = 'processed', version = version + 1, lease_token = NULL,
        lease_expires_at = NULL, finished_at = now()
    WHERE event_id = ':id' AND state = 'processing' RETURNING event_id, version, attempt
), history AS (
    INSERT INTO event_update (event_id, version, state, attempt, at, published_at)
    SELECT event_id, version, 'processed', attempt, now(), now() FROM settled
)
INSERT INTO processed_event_log (event_id, handler, attempt, lease_token, duration_ms, processed_at)
SELECT event_id, 'pgbench', attempt, gen_random_uuid(), 0, now() FROM settled;
"""

INSERT = "INSERT INTO bench_effect VALUES (':id');"

CLAIM_INSERT_AND_SETTLE = "\n".join([
    CLAIM_AND_SETTLE.replace("SET synchronous_commit = on;", "SET synchronous_commit = on;\nBEGIN;"), INSERT, "COMMIT;",
])  # fmt: skip
"""The same with a row that a handler would write, in the transaction of the settle."""

CLAIM_AND_SETTLE_MANY = r"""
SET synchronous_commit = off;
WITH due AS (
    SELECT event_id FROM processing_state WHERE state = 'queued' ORDER BY next_dispatch_at LIMIT {batch}
    FOR NO KEY UPDATE SKIP LOCKED
), claimed AS (
    UPDATE processing_state s SET state = 'processing', version = version + 1, attempt = attempt + 1,
        lease_token = gen_random_uuid(), lease_expires_at = now() + interval '30 seconds'
    FROM due WHERE s.event_id = due.event_id RETURNING s.event_id, s.version, s.attempt
), history AS (
    INSERT INTO event_update (event_id, version, state, attempt, at, published_at)
    SELECT event_id, version, 'processing', attempt, now(), now() FROM claimed
)
SELECT array_agg(event_id) AS ids FROM claimed \gset
SET synchronous_commit = on;
WITH settled AS (
    UPDATE processing_state SET state = 'processed', version = version + 1, lease_token = NULL,
        lease_expires_at = NULL, finished_at = now()
    WHERE event_id = ANY (CAST(':ids' AS uuid[])) AND state = 'processing' RETURNING event_id, version, attempt
), history AS (
    INSERT INTO event_update (event_id, version, state, attempt, at, published_at)
    SELECT event_id, version, 'processed', attempt, now(), now() FROM settled
), effects AS (
    INSERT INTO bench_effect SELECT event_id FROM settled
)
INSERT INTO processed_event_log (event_id, handler, attempt, lease_token, duration_ms, processed_at)
SELECT event_id, 'pgbench', attempt, gen_random_uuid(), 0, now() FROM settled;
"""

SEED = """
WITH made AS (
    INSERT INTO event (id, tenant, source, ce_id, type, data_bytes, is_json)
    SELECT gen_random_uuid(), 'pgbench', '/bench', gen_random_uuid()::text, 'bench.pgbench',
           convert_to(json_build_object('n', n, 'text', repeat('x', 400))::text, 'UTF8'), true
    FROM generate_series(1, {events}) AS n RETURNING id
), queued AS (
    INSERT INTO processing_state (event_id, state, version, available_at, next_dispatch_at)
    SELECT id, 'queued', 1, now(), now() + interval '1 hour' FROM made
)
INSERT INTO event_update (event_id, version, state, attempt, at, published_at)
SELECT id, 1, 'queued', 0, now(), now() FROM made
"""


def record(stack: Stack, *, seconds: float) -> float:
    """Events a second that pgbench records, one a transaction."""
    return _pgbench(stack, RECORD, seconds)


def record_many(stack: Stack, *, seconds: float, batch: int) -> float:
    """Events a second that pgbench records, ``batch`` of them a transaction."""
    return batch * _pgbench(stack, RECORD_MANY.format(batch=batch), seconds)


def claim_and_settle(stack: Stack, *, seconds: float) -> float:
    """Events a second that pgbench claims and settles, one at a time."""
    clear(stack)
    stack.postgres.execute(SEED.format(events=int(8000 * seconds)), database="holdfast")
    return _pgbench(stack, CLAIM_AND_SETTLE, seconds)


def claim_insert_and_settle(stack: Stack, *, seconds: float) -> float:
    """The same with a row written in the settling transaction."""
    clear(stack)
    stack.postgres.execute(SEED.format(events=int(8000 * seconds)), database="holdfast")
    return _pgbench(stack, CLAIM_INSERT_AND_SETTLE, seconds)


def claim_and_settle_many(stack: Stack, *, seconds: float, batch: int) -> float:
    """Events a second that pgbench claims and settles ``batch`` at a time, a row written for each, 4 clients."""
    clear(stack)
    stack.postgres.execute(SEED.format(events=int(60_000 * seconds)), database="holdfast")
    return batch * _pgbench(stack, CLAIM_AND_SETTLE_MANY.format(batch=batch), seconds, clients=4)


def record_in_a_loop(stack: Stack, *, seconds: float) -> float:
    """Events a second that one client of pgbench records, one after the other."""
    return _pgbench(stack, RECORD, seconds, clients=1)


def clear(stack: Stack) -> None:
    """Forget all events, what dead rows and stale statistics they left, and their doorbells."""
    with redis.Redis.from_url(stack.redis.url(0)) as broker:
        broker.flushdb()
    # In the order in which maintenance, which goes on, locks them: TRUNCATE by itself may end in a deadlock.
    stack.postgres.execute(
        "BEGIN; LOCK TABLE processing_state, event, event_update, attempt_error, processed_event_log;"
        " TRUNCATE event CASCADE; CREATE TABLE IF NOT EXISTS bench_effect (event_id uuid); TRUNCATE bench_effect; COMMIT",
        database="holdfast",
    )
    stack.postgres.execute("VACUUM ANALYZE", database="holdfast")


def _pgbench(stack: Stack, script: str, seconds: float, *, clients: int = CLIENTS) -> float:
    file = Path(stack.folder) / "pgbench.sql"
    file.write_text(script)
    output = stack.postgres.run(
        "pgbench", "-n", "-c", str(clients), "-j", str(min(2, clients)), "-T", str(max(1, int(seconds))), "-f", str(file),
        stack.database_url,
    )  # fmt: skip
    match = re.search(r"tps = ([0-9.]+)", output)
    if match is None:
        raise RuntimeError(f"pgbench said nothing about tps:\n{output}")
    return float(match[1])
