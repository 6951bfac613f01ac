"""The migrations make the tables that the handler writes."""

from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from github_activity.tables import Base
from holdfast.storage import Session


def is_own(name: str | None, kind: str, parents: Any) -> bool:  # noqa: ARG001
    return kind != "table" or name in Base.metadata.tables


def test_the_migrations_make_what_the_tables_say(session: Session) -> None:
    migrated = MigrationContext.configure(session.connection(), opts={"include_name": is_own, "compare_type": True})

    assert compare_metadata(migrated, Base.metadata) == []
