"""Alembic's entry: runs on the connection that ``storage.migrate`` hands over."""

from alembic import context

from holdfast.storage.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=context.config.attributes["version_table"],
)
with context.begin_transaction():
    context.run_migrations()
