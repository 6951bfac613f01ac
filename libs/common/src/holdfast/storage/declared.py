"""Handlers as live processors declare them, and how much runs and waits under their limits. All of it is bounded."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy.orm import Session

from holdfast.domain.declared import DeclaredHandler
from holdfast.storage.nodes import STALE_SECONDS
from holdfast.storage.statements import statement

__all__ = ["MOST_LINES", "MOST_WAITING", "Load", "declared_handlers", "loads"]

MOST_SHOWN = 1000
"""Handlers, of a hundred processors, the latest: those of a fleet declare the same."""

MOST_NODES = 100

MOST_RUNNING = 10_000
"""Events that run under limits and are counted: as many as there are threads."""

MOST_LINES = 300
"""Lines that are looked at, of all handlers; with more of them every count is "at least"."""

MOST_WAITING = 300
"""Events of a line that are counted."""

_DECLARED = statement("""
-- Where processors differ, as during a deployment, the latest one has it. Parameters: stale_seconds; nodes; limit.
SELECT DISTINCT ON (h.said->>'name') h.said
FROM (
    SELECT n.id, n.started_at, n.handlers FROM node n
    WHERE n.service = 'processor' AND EXISTS (
        SELECT FROM node_worker w
        WHERE w.node_id = n.id AND w.beat_at >= now() - make_interval(secs => :stale_seconds))
    ORDER BY n.started_at DESC, n.id LIMIT :nodes
) n CROSS JOIN LATERAL jsonb_array_elements(n.handlers) AS h(said)
ORDER BY h.said->>'name', n.started_at DESC, n.id LIMIT :limit
""")

_RUNNING = statement("""
-- The index has what runs under a limit and nothing else. Parameters: limit.
SELECT split_part(r.held_limit, ':', 2) AS handler, count(*) AS running FROM (
    SELECT held_limit FROM processing_state WHERE held_limit IS NOT NULL AND state = {PROCESSING} LIMIT :limit
) r GROUP BY 1
""")

_WAITING = statement("""
-- Hops from line to line, and looks at the first events of each. Parameters: lines; events.
WITH RECURSIVE found(waits_in) AS (
    (SELECT waits_in FROM processing_state
     WHERE waits_in IS NOT NULL AND unserved_type IS NOT NULL AND state IN {CLAIMABLE} ORDER BY waits_in LIMIT 1)
    UNION ALL
    SELECT (SELECT p.waits_in FROM processing_state p
            WHERE p.waits_in > f.waits_in AND p.unserved_type IS NOT NULL AND p.state IN {CLAIMABLE}
            ORDER BY p.waits_in LIMIT 1)
    FROM found f WHERE f.waits_in IS NOT NULL
)
SELECT l.waits_in AS line, w.waiting FROM (SELECT waits_in FROM found WHERE waits_in IS NOT NULL LIMIT :lines) l
CROSS JOIN LATERAL (
    SELECT count(*) AS waiting FROM (
        SELECT FROM processing_state
        WHERE waits_in = l.waits_in AND unserved_type IS NOT NULL AND state IN {CLAIMABLE} LIMIT :events
    ) first
) w
""")


@dataclass(frozen=True, slots=True)
class Load:
    """Of one handler, over all tenants.

    Attributes:
        running: events that run under its limit.
        waiting: events in its lines; at least so many if ``is_at_least``.
    """

    running: int = 0
    waiting: int = 0
    is_at_least: bool = False


def declared_handlers(session: Session) -> list[DeclaredHandler]:
    """By name."""
    parameters = {"stale_seconds": STALE_SECONDS, "nodes": MOST_NODES, "limit": MOST_SHOWN}
    return [DeclaredHandler.heard(row.said) for row in session.execute(_DECLARED, parameters)]


def loads(session: Session) -> Mapping[str, Load]:
    """By handler; those with a limit or a rate of which nothing runs and nothing waits are missing."""
    running = {row.handler: row.running for row in session.execute(_RUNNING, {"limit": MOST_RUNNING})}
    lines = session.execute(_WAITING, {"lines": MOST_LINES + 1, "events": MOST_WAITING}).all()
    is_cut = len(lines) > MOST_LINES
    waiting: Counter[str] = Counter()
    at_least: set[str] = set()
    for row in lines[:MOST_LINES]:
        kind, _, rest = row.line.partition(":")
        if kind not in ("limit", "rate"):
            continue
        handler = rest.partition(":")[0]
        waiting[handler] += row.waiting
        if row.waiting == MOST_WAITING:
            at_least.add(handler)
    return {
        name: Load(running.get(name, 0), waiting[name], is_cut or name in at_least)
        for name in running.keys() | waiting.keys()
    }
