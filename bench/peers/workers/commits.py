"""What Holdfast commits for an event, with plain psycopg2: a claim, which a crash may undo, and a settle."""

import os
import threading

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 (a class with the name of a function)

__all__ = ["claim_and_settle", "queued"]

CLAIM = """
SET LOCAL synchronous_commit = off;
WITH claimed AS (
    UPDATE processing_state SET state = 'processing', version = version + 1, attempt = attempt + 1,
        lease_token = gen_random_uuid(), lease_expires_at = now() + interval '30 seconds'
    WHERE event_id = %(id)s AND state = 'queued' RETURNING event_id, version, attempt, lease_token
), history AS (
    INSERT INTO event_update (event_id, version, state, attempt, at, published_at)
    SELECT event_id, version, 'processing', attempt, now(), now() FROM claimed
)
SELECT lease_token::text FROM claimed
"""

SETTLE = """
WITH settled AS (
    UPDATE processing_state SET state = 'processed', version = version + 1, lease_token = NULL,
        lease_expires_at = NULL, finished_at = now()
    WHERE event_id = %(id)s AND lease_token = %(token)s RETURNING event_id, version, attempt
), history AS (
    INSERT INTO event_update (event_id, version, state, attempt, at, published_at)
    SELECT event_id, version, 'processed', attempt, now(), now() FROM settled
)
INSERT INTO processed_event_log (event_id, handler, attempt, lease_token, duration_ms, processed_at)
SELECT event_id, 'peer', attempt, %(token)s, 0, now() FROM settled
"""

_mine = threading.local()


def claim_and_settle(event_id: str, *, with_insert: bool = False) -> None:
    """Two transactions on the connection of this thread. ``with_insert``: the second one writes a row, as a handler would.

    Raises:
        RuntimeError: the event is not queued, or no longer this worker's.
        psycopg2.Error: the database refused.
    """
    connection = _connection()
    with connection, connection.cursor() as cursor:
        cursor.execute(CLAIM, {"id": event_id})
        row = cursor.fetchone()
    if row is None:
        raise RuntimeError(f"event {event_id} is not queued: a message was delivered twice; start with an empty queue")
    with connection, connection.cursor() as cursor:
        cursor.execute(SETTLE, {"id": event_id, "token": row[0]})
        if cursor.rowcount != 1:
            raise RuntimeError(f"event {event_id} was not settled: another worker has it; run one peer at a time")
        if with_insert:
            cursor.execute("INSERT INTO bench_effect VALUES (%(id)s)", {"id": event_id})


def queued() -> list[str]:
    """The ids of all queued events, the oldest first."""
    connection = _connection()
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT event_id::text FROM processing_state WHERE state = 'queued' ORDER BY event_id")
        return [row[0] for row in cursor.fetchall()]


def _connection() -> Connection:
    """Opened at first use: the processes that make commits are forked before."""
    if not hasattr(_mine, "connection"):
        _mine.connection = psycopg2.connect(os.environ["BENCH_DATABASE_URL"])
    connection: Connection = _mine.connection
    return connection
