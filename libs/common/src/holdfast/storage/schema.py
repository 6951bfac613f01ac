"""Which schema a database has, and whether this release can run on it. Services ask; migrating is ``storage.migrate``."""

from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from holdfast.domain.errors import SchemaOutdated

__all__ = ["OWN_VERSION_TABLE", "REQUIRED_REVISION", "applied_revision", "check_revision"]

REQUIRED_REVISION = "0007"
"""The oldest schema that this release can run on."""

OWN_VERSION_TABLE = "holdfast_version"


def check_revision(session: Session) -> None:
    """Make sure that the schema is as new as this release needs; a newer one is fine (expand, deploy, contract).

    Raises:
        SchemaOutdated: with the command that helps.
    """
    revision = applied_revision(session)
    if revision is None or revision < REQUIRED_REVISION:
        raise SchemaOutdated(
            f"the database is at revision {revision or 'none'} and this release needs {REQUIRED_REVISION}:"
            " run 'python -m holdfast.storage migrate'"
        )


def applied_revision(session: Session, version_table: str = OWN_VERSION_TABLE) -> str | None:
    """The newest revision applied, or ``None`` where the history was never begun."""
    try:
        with session.begin_nested():
            row: Any = session.execute(text(f'SELECT max(version_num) FROM "{version_table}"')).scalar()  # noqa: S608
    except ProgrammingError:  # the table does not exist yet
        return None
    return None if row is None else str(row)
