"""Hot statements as functions of the database, which plan them once a connection.

PostgreSQL plans a statement anew each time, which takes most of the time of a settle (0.5 of 0.9 ms). Prepared statements
would be planned once, but belong to a session on the server, which a pooler in transaction mode gives to everybody. A
PL/pgSQL function is everybody's and keeps its plans in each session. ``migrate`` makes them; a function's name tells its
text, so each release finds its own, and those of the release before stay for its processes. Where they are missing the same
statement is sent as it is (ADR 0036).
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Engine, Result, event, text
from sqlalchemy.orm import Session

__all__ = ["Planned", "create", "install"]

_KNOWN = "holdfast.planned"
"""Where a pooled connection keeps the names of the functions that its database has."""

_PARAMETER = re.compile(r"(?<![:\w]):(\w+)")

_NAMES = "SELECT proname FROM pg_proc WHERE proname LIKE 'holdfast\\_%' AND pg_function_is_visible(oid)"

_DEFINITION = """
CREATE OR REPLACE FUNCTION {name}({parameters}) RETURNS TABLE ({columns}) LANGUAGE plpgsql
-- The plan is made when tables may be empty and kept when they are large: only index look-ups are right in both.
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $function$
#variable_conflict use_column
BEGIN
    RETURN QUERY {body};
END $function$
"""


class Planned:
    """A statement with named parameters that returns rows.

    Args:
        name: of letters and underscores; the function's name begins with it.
        sql: as for ``sqlalchemy.text``.
        parameters: SQL type of each parameter by its name, in the order of the function's arguments.
        columns: SQL type of each column of the answer, in its order.
    """

    def __init__(self, name: str, sql: str, *, parameters: Mapping[str, str], columns: Mapping[str, str]) -> None:
        places = {parameter: f"${number}" for number, parameter in enumerate(parameters, 1)}
        definition = _DEFINITION.replace("{parameters}", ", ".join(parameters.values()))
        definition = definition.replace("{columns}", ", ".join(f'"{each}" {type_}' for each, type_ in columns.items()))
        definition = definition.replace("{body}", _PARAMETER.sub(lambda match: places[match[1]], sql).strip())
        digest = hashlib.sha256(definition.encode()).hexdigest()[:12]
        self.function = f"holdfast_{name}_{digest}"
        self.definition = definition.replace("{name}", self.function)
        self._plain = text(sql)
        arguments = ", ".join(f"CAST(:{parameter} AS {type_})" for parameter, type_ in parameters.items())
        self._call = text(f"SELECT * FROM {self.function}({arguments})")  # noqa: S608 (names of ours)

    def execute(self, session: Session, parameters: Mapping[str, Any]) -> Result[Any]:
        """Run it in the session's transaction."""
        known = session.connection().info.get(_KNOWN, ())
        return session.execute(self._call if self.function in known else self._plain, parameters)


def create(connection: Connection, statements: Iterable[Planned]) -> None:
    """Make the functions of these statements, where they are missing."""
    for each in statements:
        connection.exec_driver_sql(each.definition.replace("%", "%%"))


def install(engine: Engine) -> None:
    """Let the engine's connections know which functions their database has: once, when they are opened."""
    event.listen(engine, "connect", _learn)


def _learn(connection: Any, record: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_NAMES)
        record.info[_KNOWN] = frozenset(row[0] for row in cursor.fetchall())
