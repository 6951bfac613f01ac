"""Statements for ``Database.look``."""

from holdfast.storage.connection import Dialect
from holdfast.storage.statements import statement

__all__ = ["look"]


def look(sql: str, **parts: str) -> str:
    """As ``statements.statement``, but as psycopg2 takes it."""
    return str(statement(sql, **parts).compile(dialect=Dialect()))  # type: ignore[no-untyped-call]
