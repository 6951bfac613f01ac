"""Events that wait (for their turn, or for a handler) step aside; lanes are 128 bits of SHA-256, and stored where ordered.

Expand only: ``lane`` and ``held_lane`` stay, because processors of the release before go by them. ``lane`` also goes on
finding the events of a subject. What to drop in a later release: ``held_lane``, its index and its constraint.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TABLE = "processing_state"


def upgrade() -> None:
    op.add_column(TABLE, sa.Column("lane_key", sa.Uuid(), nullable=True))
    op.add_column(TABLE, sa.Column("held_lane_key", sa.Uuid(), nullable=True))
    op.add_column(TABLE, sa.Column("waiting_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column(TABLE, sa.Column("unserved_type", sa.Text(), nullable=True))
    op.create_index(
        "ix_processing_state_lane_key",
        TABLE,
        ["lane_key", "lane_at", "event_id"],
        postgresql_where=sa.text("lane_key IS NOT NULL AND state IN ('queued', 'failed', 'processing')"),
    )
    op.create_index(
        "uq_processing_state_held_lane_key",
        TABLE,
        ["held_lane_key"],
        unique=True,
        postgresql_where=sa.text("held_lane_key IS NOT NULL AND state = 'processing'"),
    )
    op.create_index(
        "ix_processing_state_waiting_turn",
        TABLE,
        ["lane_key"],
        postgresql_where=sa.text(
            "waiting_since IS NOT NULL AND unserved_type IS NULL AND state IN ('queued', 'failed')"
        ),
    )
    op.create_index(
        "ix_processing_state_unserved",
        TABLE,
        ["unserved_type", "waiting_since"],
        postgresql_where=sa.text("unserved_type IS NOT NULL AND state IN ('queued', 'failed')"),
    )
    op.create_table(
        "served_type",
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("is_ordered", sa.Boolean(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("type", name=op.f("pk_served_type")),
    )


def downgrade() -> None:
    op.execute(
        "UPDATE processing_state SET available_at = waiting_since, next_dispatch_at = now()"
        " WHERE waiting_since IS NOT NULL AND state IN ('queued', 'failed')"
    )
    op.drop_table("served_type")
    for index in ("unserved", "waiting_turn", "lane_key"):
        op.drop_index(f"ix_processing_state_{index}", table_name=TABLE)
    op.drop_index("uq_processing_state_held_lane_key", table_name=TABLE)
    for column in ("unserved_type", "waiting_since", "held_lane_key", "lane_key"):
        op.drop_column(TABLE, column)
