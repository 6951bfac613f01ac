"""An index for what an event's handler emitted. The column is there since 0001.

On a large table build it beforehand, with CREATE INDEX CONCURRENTLY and its name (docs/operations.md).
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_event_parent_id",
        "event",
        ["parent_id", "id"],
        postgresql_where=sa.text("parent_id IS NOT NULL"),
        if_not_exists=True,
    )


def downgrade() -> None:
    op.drop_index("ix_event_parent_id", table_name="event")
