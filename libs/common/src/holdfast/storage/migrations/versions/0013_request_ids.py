"""The request and the trace that an event came with, and an index for each.

On a large table build the indexes beforehand, with CREATE INDEX CONCURRENTLY and these names (docs/operations.md): the
columns first, as here; what exists is left as it is.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

COLUMNS = {"request_id": "text", "trace_id": "uuid", "span_id": "text"}

INDEXED = ("request_id", "trace_id")


def upgrade() -> None:
    for name, type_ in COLUMNS.items():
        op.execute(f"ALTER TABLE event ADD COLUMN IF NOT EXISTS {name} {type_}")
    for name in INDEXED:
        op.create_index(
            f"ix_event_{name}",
            "event",
            ["tenant", name, "id"],
            postgresql_where=sa.text(f"{name} IS NOT NULL"),
            if_not_exists=True,
        )


def downgrade() -> None:
    for name in INDEXED:
        op.drop_index(f"ix_event_{name}", table_name="event")
    for name in COLUMNS:
        op.drop_column("event", name)
