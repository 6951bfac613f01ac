"""Comparing databases, for tests."""

from sqlalchemy import text
from sqlalchemy.orm import Session

__all__ = ["table_contents"]


def table_contents(session: Session) -> dict[str, list[str]]:
    """Every row of every table of the schema ``public``, as sorted text, as this transaction sees it."""
    names = session.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"))
    return {name: sorted(session.scalars(text(f'SELECT t::text FROM "{name}" t'))) for name in names}  # noqa: S608
