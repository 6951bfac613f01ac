"""Which schema a database has, and whether this release can run on it. Services ask; migrating is ``storage.migrate``."""

from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from holdfast.domain.errors import DatabaseUnsuitable, SchemaOutdated

__all__ = [
    "MINIMUM_SERVER",
    "OWN_VERSION_TABLE",
    "REQUIRED_REVISION",
    "applied_revision",
    "check_revision",
    "check_server",
]

REQUIRED_REVISION = "0028"
"""The oldest schema that this release can run on."""

OWN_VERSION_TABLE = "holdfast_version"

MINIMUM_SERVER = 140_000
"""PostgreSQL 14, as ``server_version_num`` counts: the first with ``client_connection_check_interval``."""

_SERVER = text("SELECT current_setting('server_encoding'), CAST(current_setting('server_version_num') AS int)")


def check_revision(session: Session) -> None:
    """Make sure that the schema is as new as this release needs; a newer one is fine (expand, deploy, contract).

    Raises:
        DatabaseUnsuitable: see :func:`check_server`.
        SchemaOutdated: with the command that helps.
    """
    check_server(session)
    revision = applied_revision(session)
    if revision is None or revision < REQUIRED_REVISION:
        raise SchemaOutdated(
            f"the database is at revision {revision or 'none'} and this release needs {REQUIRED_REVISION}:"
            " run 'python -m holdfast.storage migrate'"
        )


def check_server(session: Session) -> None:
    """Make sure that the database can hold every event, and that its server is new enough.

    Raises:
        DatabaseUnsuitable: its encoding is not UTF-8, or its server is older than PostgreSQL 14.
    """
    encoding, version = session.execute(_SERVER).one()
    if encoding != "UTF8":
        raise DatabaseUnsuitable(
            f"the database's encoding is {encoding}, which cannot hold every event: create one with"
            " CREATE DATABASE name TEMPLATE template0 ENCODING 'UTF8'"
        )
    if version < MINIMUM_SERVER:
        raise DatabaseUnsuitable(f"the server is PostgreSQL {version // 10_000}; Holdfast needs 14 or newer")


def applied_revision(session: Session, version_table: str = OWN_VERSION_TABLE) -> str | None:
    """The newest revision applied, or ``None`` where the history was never begun."""
    try:
        with session.begin_nested():
            row: Any = session.execute(text(f'SELECT max(version_num) FROM "{version_table}"')).scalar()  # noqa: S608
    except ProgrammingError:  # the table does not exist yet
        return None
    return None if row is None else str(row)
