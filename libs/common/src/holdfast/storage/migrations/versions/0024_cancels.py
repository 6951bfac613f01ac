"""Requests to cancel events that run: a new table, of a few rows at any time."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cancel_request",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name="pk_cancel_request"),
        sa.ForeignKeyConstraint(["event_id"], ["event.id"], name="fk_cancel_request_event_id", ondelete="CASCADE"),
    )


def downgrade() -> None:
    op.drop_table("cancel_request")
