"""Due events before it is decided what becomes of them, found by their doorbells, in turns, or where they wait."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, TextClause
from sqlalchemy.orm import Session

from holdfast.domain.errors import DataUnreadable, KeyMissing
from holdfast.domain.event import Doorbell
from holdfast.storage.event_columns import CONTENT, ROUTE, opened
from holdfast.storage.statements import render, statement

__all__ = [
    "MOST_KINDS", "Candidate", "Kind", "data_of", "due", "due_suspects", "in_lines", "kinds_of", "look", "unserved",
]  # fmt: skip

MOST_KINDS = 64
"""That one search looks at, in each pool."""

_CANDIDATES = render("""
SELECT s.event_id, s.version, {route} AS type, e.tenant, e.subject, s.lane_key IS NOT NULL AS has_lane, s.priority, s.pool,
       CASE WHEN s.unserved_type = '' THEN s.waits_in END AS waits_in, coalesce(s.waiting_since, s.available_at) AS due_at,
       CAST(extract(epoch FROM now() - coalesce(s.waiting_since, s.available_at)) AS float8) AS waited_seconds,
       s.unserved_type > '' AS is_unserved,
       s.unserved_type > '' AND coalesce((
           SELECT u.detail->>'reason' = 'no_handler' FROM event_update u
           WHERE u.event_id = s.event_id AND u.version = s.version), false) AS is_reported
FROM {states} s
-- OFFSET 0: one look-up an event, whatever the planner takes their number for.
CROSS JOIN LATERAL (SELECT tenant, type, extensions, subject FROM event WHERE id = s.event_id OFFSET 0) e
""", states="{states}", route=ROUTE)  # fmt: skip

_KINDS = statement("""
-- Pools, tenants and priorities of which there are open events, due or not. Hops from one to the next, so that it costs their
-- number and not that of events. Parameters: pools; after, the tenant to begin behind in each pool; most, of each pool.
WITH RECURSIVE kinds AS (
    SELECT first.*, 1 AS number FROM unnest(CAST(:pools AS text[])) AS wanted(pool)
    CROSS JOIN LATERAL (
        SELECT pool, tenant_name, priority FROM processing_state
        WHERE pool = wanted.pool AND tenant_name >= :after AND waiting_since IS NULL AND state IN {CLAIMABLE}
        ORDER BY pool, tenant_name, priority LIMIT 1) first
    UNION ALL
    SELECT next.*, k.number + 1 FROM kinds k
    CROSS JOIN LATERAL (
        SELECT pool, tenant_name, priority FROM processing_state
        WHERE pool = k.pool AND (pool, tenant_name, priority) > (k.pool, k.tenant_name, k.priority)
          AND waiting_since IS NULL AND state IN {CLAIMABLE}
        ORDER BY pool, tenant_name, priority LIMIT 1) next
    WHERE k.number < :most
)
SELECT pool, tenant_name AS tenant, priority FROM kinds ORDER BY tenant_name, pool, priority
""")

_DUE = statement("""
-- The oldest due events of every kind; the caller chooses whose turn it is. Parameters: kinds, JSON array of {{pool,
-- tenant, priority}}; overdue_seconds, how long an event has been due at least; limit, of each kind. Rows are compared as a
-- whole, and events are chosen before anything is joined: no other index has that order, and the planner, whose statistics
-- may be older than a backlog, can go no other way.
WITH due AS MATERIALIZED (
    SELECT s.* FROM jsonb_to_recordset(CAST(:kinds AS jsonb)) AS k(pool text, tenant text, priority smallint)
    CROSS JOIN LATERAL (
        SELECT * FROM processing_state
        WHERE (pool, tenant_name, priority, available_at) >= (k.pool, k.tenant, k.priority, '-infinity')
          AND (pool, tenant_name, priority, available_at)
              <= (k.pool, k.tenant, k.priority, now() - make_interval(secs => :overdue_seconds))
          AND waiting_since IS NULL AND state IN {CLAIMABLE} AND crashes = 0
        ORDER BY pool, tenant_name, priority, available_at LIMIT :limit
        FOR NO KEY UPDATE SKIP LOCKED) s
)
{candidates}
ORDER BY s.available_at
""", candidates=_CANDIDATES.format(states="due"))  # fmt: skip

_DUE_SUSPECTS = statement("""
-- Parameters: pools, overdue_seconds, limit. Suspects have an index of their own: few, among however many others are due.
WITH due AS MATERIALIZED (
    SELECT s.* FROM processing_state s
    WHERE s.state IN {CLAIMABLE} AND s.available_at <= now() - make_interval(secs => :overdue_seconds) AND s.crashes > 0
      AND s.waiting_since IS NULL AND s.pool = ANY (:pools)
    ORDER BY s.available_at LIMIT :limit
    FOR NO KEY UPDATE OF s SKIP LOCKED
)
{candidates}
ORDER BY s.available_at
""", candidates=_CANDIDATES.format(states="due"))  # fmt: skip

_UNSERVED = statement("""
-- Events that wait for a handler. Parameters: types, those that the caller serves; is_suspect; limit.
{candidates}
WHERE s.state IN {CLAIMABLE} AND s.unserved_type = ANY (:types) AND (s.crashes > 0) = :is_suspect
ORDER BY s.waiting_since LIMIT :limit
FOR NO KEY UPDATE OF s SKIP LOCKED
""", candidates=_CANDIDATES.format(states="processing_state"))  # fmt: skip

_IN_LINES = statement("""
-- The first events of lines. Parameters: counts, JSON object of how many by line; is_suspect; limit.
WITH due AS MATERIALIZED (
    SELECT s.* FROM jsonb_each_text(CAST(:counts AS jsonb)) w
    CROSS JOIN LATERAL (
        SELECT * FROM processing_state
        WHERE waits_in = w.key AND unserved_type IS NOT NULL AND state IN {CLAIMABLE} AND (crashes > 0) = :is_suspect
        ORDER BY waiting_since, event_id LIMIT CAST(w.value AS int)
        FOR NO KEY UPDATE SKIP LOCKED) s
    LIMIT :limit
)
{candidates}
ORDER BY s.waiting_since
""", candidates=_CANDIDATES.format(states="due"))  # fmt: skip

_DATA = statement("""
-- Parameters: event_ids.
SELECT e.id, e.tenant, {content} AS content, e.is_json OR e.data IS NOT NULL AS is_json, e.data_key_id
FROM event e WHERE e.id = ANY (:event_ids)
""", content=CONTENT)  # fmt: skip

_AT_VERSION = statement("""
-- Parameters: doorbells, JSON array of {{event_id, version}}.
{candidates}
WHERE s.state {FOUND_CLAIMABLE} AND coalesce(s.waiting_since, s.available_at) <= now() AND EXISTS (
    SELECT FROM jsonb_to_recordset(CAST(:doorbells AS jsonb)) AS d(event_id uuid, version int)
    WHERE d.event_id = s.event_id AND d.version = s.version)
  AND s.event_id = ANY (:event_ids)
FOR NO KEY UPDATE OF s SKIP LOCKED
""", candidates=_CANDIDATES.format(states="processing_state"))  # fmt: skip


class Kind(NamedTuple):
    """Events that a search tells apart: of each kind it looks at the oldest."""

    pool: str
    tenant: str
    priority: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A due event, locked until the transaction ends, before it is decided what becomes of it.

    ``type``: its route (``StoredEvent.route``). ``waited_seconds``: since it became due, ``due_at``. ``waits_in``: the line
    that it waits in; ``is_unserved``: it waits for a handler; ``is_reported``: clients know.
    """

    event_id: UUID
    version: int
    type: str
    tenant: str
    subject: str | None
    has_lane: bool
    priority: int
    pool: str
    waits_in: str | None
    due_at: datetime
    waited_seconds: float
    is_unserved: bool
    is_reported: bool

    @property
    def doorbell(self) -> Doorbell:
        """What would be rung for it."""
        return Doorbell(self.event_id, self.version, False, self.tenant, self.priority, self.pool)


def kinds_of(session: Session, pools: Sequence[str], *, after: str = "") -> list[Kind]:
    """The kinds of open events in pools, up to ``MOST_KINDS`` of each, from the tenant ``after`` on."""
    rows = session.execute(_KINDS, {"pools": list(pools), "after": after, "most": MOST_KINDS})
    return [Kind(*row) for row in rows]


def data_of(session: Session, event_ids: Sequence[UUID]) -> dict[UUID, Any]:
    """The parsed data of events; ``None`` of those whose data is no JSON, or does not open here."""
    rows = session.execute(_DATA, {"event_ids": list(event_ids)}) if event_ids else ()
    return {row.id: _parsed(session, row) for row in rows}


def _parsed(session: Session, row: Row[Any]) -> Any:
    if not row.is_json or row.content is None:
        return None
    content = bytes(row.content)
    try:
        return json.loads(content if row.data_key_id is None else opened(session, row, content))
    except (KeyMissing, DataUnreadable):
        return None  # its attempt finds out, and says so


def look(session: Session, doorbells: Iterable[Doorbell | tuple[UUID, int]]) -> list[Candidate]:
    """The events that are due at the version their doorbell names, but for those that somebody else looks at."""
    listed = [{"event_id": str(event_id), "version": version} for event_id, version, *_ in doorbells]
    parameters = {"doorbells": json.dumps(listed), "event_ids": [UUID(str(each["event_id"])) for each in listed]}
    return _candidates(session, _AT_VERSION, parameters)


def unserved(session: Session, types: Sequence[str], *, is_suspect: bool, limit: int) -> list[Candidate]:
    """Events of these types that wait for a handler."""
    return _candidates(session, _UNSERVED, {"types": list(types), "is_suspect": is_suspect, "limit": limit})


def in_lines(session: Session, counts: Mapping[str, int], *, is_suspect: bool, limit: int) -> list[Candidate]:
    """The first events of lines, so many of each."""
    parameters = {"counts": json.dumps(dict(counts)), "is_suspect": is_suspect, "limit": limit}
    return _candidates(session, _IN_LINES, parameters)


def due_suspects(session: Session, pools: Sequence[str], *, overdue_seconds: float, limit: int) -> list[Candidate]:
    """Due events that were with a lost worker, the oldest first."""
    parameters = {"pools": list(pools), "overdue_seconds": overdue_seconds, "limit": limit}
    return _candidates(session, _DUE_SUSPECTS, parameters)


def due(session: Session, kinds: Sequence[Kind], overdue_seconds: float, limit: int) -> tuple[list[Candidate], int]:
    """Due events of these kinds, twice as many as are wanted where there are several; and how many there can be."""
    if not kinds:
        return [], limit
    each = limit if len(kinds) == 1 else math.ceil(2 * limit / len(kinds))
    listed = json.dumps([kind._asdict() for kind in kinds])
    parameters = {"kinds": listed, "overdue_seconds": overdue_seconds, "limit": each}
    return _candidates(session, _DUE, parameters), each * len(kinds)


def _candidates(session: Session, sql: TextClause, parameters: dict[str, Any]) -> list[Candidate]:
    return [Candidate(**row) for row in session.execute(sql, parameters).mappings()]
