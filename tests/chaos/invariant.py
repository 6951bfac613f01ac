"""The invariant that holds after every fault: accepted means kept, processed means once, and nothing stays stuck."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import psycopg2

__all__ = ["OUTSIDE", "violations"]

OUTSIDE = "outside"
"""Name of the handlers whose effects are not in the database."""

_CHECKS = {
    "events that were accepted and are not there": """
        SELECT a.id FROM unnest(%(accepted)s::uuid[]) a(id) LEFT JOIN event e USING (id) WHERE e.id IS NULL""",
    "accepted events that are neither processed, dead, discarded nor open": """
        SELECT e.id FROM event e LEFT JOIN processing_state s ON s.event_id = e.id
        WHERE s.state IS NULL
           OR s.state NOT IN ('processed', 'dead', 'discarded', 'queued', 'failed', 'processing')""",
    "processed events without a row in the processed-event log, or the reverse": """
        SELECT event_id FROM processing_state s FULL JOIN processed_event_log l USING (event_id)
        WHERE (s.state = 'processed') IS DISTINCT FROM (l.event_id IS NOT NULL)""",
    "processed events with other than one set of effects": """
        SELECT l.event_id FROM processed_event_log l LEFT JOIN effect f USING (event_id)
        WHERE l.handler <> %(outside)s
        GROUP BY l.event_id HAVING count(f.event_id) <> 1""",
    "effects of events that are not processed": """
        SELECT f.event_id FROM effect f LEFT JOIN processed_event_log l USING (event_id) WHERE l.event_id IS NULL""",
    "events settled twice": """
        SELECT event_id FROM event_update WHERE state = 'processed' GROUP BY event_id HAVING count(*) > 1""",
    "leases older than twice their length": """
        SELECT event_id FROM processing_state
        WHERE state = 'processing' AND lease_expires_at < now() - make_interval(secs => %(lease_seconds)s)""",
    "histories with a gap, or that end before the event's version": """
        SELECT s.event_id FROM processing_state s LEFT JOIN event_update u USING (event_id)
        GROUP BY s.event_id, s.version
        HAVING count(u.version) <> s.version OR min(u.version) <> 1 OR max(u.version) <> s.version""",
}


def violations(database_url: str, *, accepted: Iterable[UUID | str] = (), lease_seconds: float) -> dict[str, list[Any]]:
    """What breaks the invariant, with the ids of up to ten events each; empty when it holds.

    Args:
        accepted: the ``event_id`` of every 202 that a producer was given.
        lease_seconds: the services' lease.
    """
    parameters = {
        "accepted": [str(each) for each in accepted], "outside": OUTSIDE, "lease_seconds": lease_seconds,
    }  # fmt: skip
    found: dict[str, list[Any]] = {}
    connection = psycopg2.connect(database_url)
    try:
        with connection, connection.cursor() as cursor:
            # One snapshot: services go on while this looks.
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            for name, query in _CHECKS.items():
                cursor.execute(query, parameters)
                if rows := cursor.fetchmany(10):
                    found[name] = [row[0] for row in rows]
    finally:
        connection.close()
    return found
