"""Lines: where due events wait that may not run yet, because something is paused or a limit is reached.

An event in a line (``waits_in``) is met by no search and rung for by nobody; its ``waiting_since`` says when it became due.
Searches look at lines instead: which are there, and whether their first events may run by now.
"""

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Session

from holdfast.domain.event import Doorbell
from holdfast.storage.lanes import WAIT_SECONDS
from holdfast.storage.statements import render, statement

__all__ = ["HAS_LINES", "first_waiting", "lines", "promote", "set_aside", "set_pool"]

HAS_LINES = render("""
(SELECT waits_in FROM processing_state
 WHERE waits_in IS NOT NULL AND unserved_type IS NOT NULL AND state IN {CLAIMABLE} ORDER BY waits_in LIMIT 1) IS NOT NULL
""").strip()

_SET_ASIDE = statement("""
-- Parameters: lines, JSON object of lines by event id; wait_seconds.
UPDATE processing_state s SET
    waiting_since = coalesce(s.waiting_since, s.available_at), unserved_type = '', waits_in = w.value, dispatches = 0,
    available_at = now() + make_interval(secs => :wait_seconds),
    next_dispatch_at = now() + make_interval(secs => :wait_seconds)
FROM jsonb_each_text(CAST(:lines AS jsonb)) w
WHERE s.event_id = ANY (:event_ids) AND s.event_id = CAST(w.key AS uuid) AND s.state {FOUND_CLAIMABLE}
""")

_LINES = statement("""
-- Hops from line to line, so that it costs the number of lines and not of events. Parameters: start, limit.
WITH RECURSIVE found(waits_in) AS (
    (SELECT waits_in FROM processing_state
     WHERE waits_in > :start AND unserved_type IS NOT NULL AND state IN {CLAIMABLE} ORDER BY waits_in LIMIT 1)
    UNION ALL
    SELECT (SELECT p.waits_in FROM processing_state p
            WHERE p.waits_in > f.waits_in AND p.unserved_type IS NOT NULL AND p.state IN {CLAIMABLE}
            ORDER BY p.waits_in LIMIT 1)
    FROM found f WHERE f.waits_in IS NOT NULL
)
SELECT waits_in FROM found WHERE waits_in IS NOT NULL LIMIT :limit
""")

_PROMOTE = statement("""
-- Parameters: counts, JSON object of how many by line.
WITH first AS (
    SELECT p.event_id FROM jsonb_each_text(CAST(:counts AS jsonb)) w
    CROSS JOIN LATERAL (
        SELECT event_id FROM processing_state
        WHERE waits_in = w.key AND unserved_type IS NOT NULL AND state IN {CLAIMABLE}
        ORDER BY waiting_since, event_id LIMIT CAST(w.value AS int)
        FOR NO KEY UPDATE SKIP LOCKED
    ) p
)
UPDATE processing_state s SET
    available_at = s.waiting_since, next_dispatch_at = now() + interval '5 s', waiting_since = NULL,
    unserved_type = NULL, waits_in = NULL
WHERE s.event_id = ANY (ARRAY(SELECT event_id FROM first))
RETURNING s.event_id, s.version, s.crashes > 0 AS is_suspect, s.tenant_name, s.priority, s.pool
""")

_FIRST_WAITING = statement("""
-- Parameters: lines; but_for, event ids.
SELECT line, (SELECT waiting_since FROM processing_state
              WHERE waits_in = line AND unserved_type IS NOT NULL AND state IN {CLAIMABLE} AND event_id <> ALL (:but_for)
              ORDER BY waiting_since LIMIT 1) AS due_at
FROM unnest(CAST(:lines AS text[])) AS line
""")

_SET_POOL = statement("""
-- Parameters: pools, JSON object of pools by event id.
UPDATE processing_state s SET
    pool = w.value, available_at = coalesce(s.waiting_since, s.available_at), waiting_since = NULL, unserved_type = NULL,
    waits_in = NULL
FROM jsonb_each_text(CAST(:pools AS jsonb)) w
WHERE s.event_id = ANY (:event_ids) AND s.event_id = CAST(w.key AS uuid) AND s.state {FOUND_CLAIMABLE}
""")


def set_aside(session: Session, lines_by_event: Mapping[UUID, str]) -> None:
    """Let claimable events wait in lines. Their rows are locked by the caller."""
    if lines_by_event:
        parameters = {
            "lines": json.dumps({str(event_id): line for event_id, line in lines_by_event.items()}),
            "event_ids": list(lines_by_event), "wait_seconds": WAIT_SECONDS,
        }  # fmt: skip
        session.execute(_SET_ASIDE, parameters)


def lines(session: Session, *, start: str = "", limit: int) -> list[str]:
    """Lines in which events wait, in their order after ``start``."""
    return list(session.scalars(_LINES, {"start": start, "limit": limit}))


def promote(session: Session, counts: Mapping[str, int]) -> list[Doorbell]:
    """Let the first events of lines be looked for again; the doorbells to ring for them after the commit."""
    if not counts:
        return []
    rows = session.execute(_PROMOTE, {"counts": json.dumps(counts)})
    return [
        Doorbell(row.event_id, row.version, row.is_suspect, row.tenant_name, row.priority, row.pool) for row in rows
    ]


def first_waiting(session: Session, lines: Collection[str], *, but_for: Collection[UUID]) -> Mapping[str, datetime]:
    """When the first event of each line became due, but for some; lines in which nobody else waits are missing."""
    if not lines:
        return {}
    rows = session.execute(_FIRST_WAITING, {"lines": sorted(lines), "but_for": list(but_for)})
    return {row.line: row.due_at for row in rows if row.due_at is not None}


def set_pool(session: Session, pools: Mapping[UUID, str]) -> None:
    """Move claimable events, which the caller has locked, to the pools of their handlers, out of any line."""
    if pools:
        listed = json.dumps({str(event_id): pool for event_id, pool in pools.items()})
        session.execute(_SET_POOL, {"pools": listed, "event_ids": list(pools)})
