"""Where recorded events go: the priority and the pool that handlers have declared, and the weights of tenants.

Processors write down what their handlers declare. Recording reads it, once in a few seconds.
"""

import json
import time
from collections.abc import Iterable
from uuid import UUID
from weakref import WeakKeyDictionary

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from holdfast.domain.attributes import priority_of
from holdfast.domain.event import NewEvent
from holdfast.domain.routes import PLAIN, Route, Routing
from holdfast.storage.statements import statement

__all__ = ["PLAIN", "declare_routes", "routes_of", "routing_of"]

FRESH_SECONDS = 5.0
"""How long a process goes by what it has read."""

MAX_PATTERNS = 10_000

_ROUTING = statement("""
-- Parameters: limit.
SELECT (SELECT json_agg(json_build_array(pattern, priority, pool))
        FROM (SELECT * FROM handler_route ORDER BY pattern LIMIT :limit) r) AS routes,
       (SELECT json_object_agg(name, weight) FROM (SELECT * FROM tenant WHERE weight <> 1 LIMIT :limit) t) AS weights
""")

_DECLARE = statement("""
-- Parameters: routes, JSON array of {{pattern, priority, pool}}; plain, patterns that have none.
WITH wanted AS (
    SELECT * FROM jsonb_to_recordset(CAST(:routes AS jsonb)) AS r(pattern text, priority smallint, pool text)
), gone AS (
    DELETE FROM handler_route WHERE pattern = ANY (:plain)
)
INSERT INTO handler_route (pattern, priority, pool)
SELECT pattern, priority, pool FROM wanted ORDER BY pattern
ON CONFLICT (pattern) DO UPDATE SET priority = excluded.priority, pool = excluded.pool
WHERE (handler_route.priority, handler_route.pool) IS DISTINCT FROM (excluded.priority, excluded.pool)
""")


_known: WeakKeyDictionary[Engine, tuple[float, Routing]] = WeakKeyDictionary()
"""By engine: a process may have several databases, in tests above all."""


def routing_of(session: Session) -> Routing:
    """What was read lately, or is read now, in the session's transaction."""
    engine = session.get_bind().engine
    known = _known.get(engine)
    if known is not None and time.monotonic() - known[0] < FRESH_SECONDS:
        return known[1]
    row = session.execute(_ROUTING, {"limit": MAX_PATTERNS}).one()
    routes = {pattern: Route(priority, pool) for pattern, priority, pool in row.routes or ()}
    routing = Routing(
        exact={pattern: route for pattern, route in routes.items() if "*" not in pattern},
        patterns={pattern: route for pattern, route in routes.items() if "*" in pattern},
        weights=row.weights or {},
    )
    _known[engine] = (time.monotonic(), routing)
    return routing


def declare_routes(session: Session, routes: Iterable[tuple[str, Route]]) -> None:
    """Write down the routes of a processor's handlers, by their patterns. Those of other processors stay."""
    listed = dict(routes)
    wanted = [
        {"pattern": pattern, "priority": route.priority, "pool": route.pool}
        for pattern, route in listed.items()
        if route != PLAIN
    ]
    plain = sorted(pattern for pattern, route in listed.items() if route == PLAIN)
    session.execute(_DECLARE, {"routes": json.dumps(wanted), "plain": plain})


def routes_of(routing: Routing, events: Iterable[NewEvent]) -> dict[UUID, Route]:
    """Of events that are not queued as plain ones: their handler's route, with the priority that they ask for themselves."""
    routes: dict[UUID, Route] = {}
    for event in events:
        route, priority = routing.route(event.type), priority_of(event.extensions)
        if priority is not None:
            route = route._replace(priority=priority)
        if route != PLAIN:
            routes[event.id] = route
    return routes
