"""Windows: a new table; and an index over the groups that are open."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "event_window",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_event_window"),
        sa.CheckConstraint("kind IN ('debounce', 'unique')", name=op.f("ck_event_window_kind_is_known")),
    )
    op.create_index("ix_event_window_until", "event_window", ["until"])
    op.create_index("ix_event_group_open", "event_group", ["id"], postgresql_where=sa.text("completed_at IS NULL"))


def downgrade() -> None:
    op.drop_index("ix_event_group_open", "event_group")
    op.drop_table("event_window")
