"""Steps of handlers: a new table."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "event_step",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("handler", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("lease_token", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("wake_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.PrimaryKeyConstraint("event_id", "handler", "name", name="pk_event_step"),
        sa.ForeignKeyConstraint(["event_id"], ["event.id"], name="fk_event_step_event_id", ondelete="CASCADE"),
        sa.CheckConstraint("(result IS NULL) = (wake_at IS NOT NULL)", name=op.f("ck_event_step_result_or_sleep")),
    )


def downgrade() -> None:
    op.drop_table("event_step")
