"""What PostgreSQL is told about tables beyond their columns: when autovacuum comes, and what statistics the planner needs.

Autovacuum comes by what happened since, not by how large a table has become. ADR 0032 has the measurements.
"""

from typing import Any

from sqlalchemy import Connection, Table, event, text

__all__ = ["APPENDED", "COUNTERS", "EVENTS", "IDENTITIES", "STATES", "UPDATES", "add_statistics"]

STATES = {
    "fillfactor": 90,
    "autovacuum_vacuum_scale_factor": 0.01,
    "autovacuum_vacuum_threshold": 2000,
    "autovacuum_analyze_scale_factor": 0.02,
    "autovacuum_vacuum_cost_delay": 1,
}
"""Two dead rows an event. No change of a state is a HOT one, since partial indexes ask for states: the room that is left in a
page only keeps a row's next version beside it."""

UPDATES = {
    "autovacuum_vacuum_scale_factor": 0.01,
    "autovacuum_vacuum_threshold": 2000,
    "autovacuum_vacuum_insert_scale_factor": 0.05,
    "autovacuum_vacuum_cost_delay": 1,
}

_DROPPED = {
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_threshold": 2000,
    "autovacuum_vacuum_cost_delay": 1,
}
"""Of tables whose rows go by retention: what was freed comes back to new events while few have gone (ADR 0052)."""

EVENTS = {"autovacuum_vacuum_insert_scale_factor": 0.05, "autovacuum_analyze_scale_factor": 0.02, **_DROPPED}

APPENDED = {"autovacuum_vacuum_insert_scale_factor": 0.05, **_DROPPED}

IDENTITIES = {"autovacuum_vacuum_scale_factor": 0.05, "autovacuum_vacuum_insert_scale_factor": 0.05}

COUNTERS = {"fillfactor": 70}
"""No index has a count, so an update is a HOT one while there is room in its page; that is what needs no vacuum."""

_ERROR_PARTS = ("type", "handler", "fingerprint")


def add_statistics(states: Any) -> None:
    """Let ``CREATE TABLE processing_state`` be followed by statistics over the parts of ``last_error``.

    The planner does not use what it knows of a partial index's expression. It would expect an error in 1 of 200 events.
    """

    def create(table: Table, connection: Connection, **_: Any) -> None:
        for part in _ERROR_PARTS:
            statistics = (
                f"CREATE STATISTICS st_{table.name}_error_{part} ON (last_error ->> '{part}') FROM {table.name}"
            )
            connection.execute(text(statistics))

    event.listen(states, "after_create", create)
