"""Lanes, in which events of one subject are taken one by one, and an index for the processor's own search for work."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("processing_state", sa.Column("lane", sa.BigInteger(), nullable=True))
    op.add_column("processing_state", sa.Column("lane_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("processing_state", sa.Column("held_lane", sa.BigInteger(), nullable=True))
    op.create_check_constraint(
        op.f("ck_processing_state_lane_held_while_processing"),
        "processing_state",
        "held_lane IS NULL OR state = 'processing'",
    )
    op.create_check_constraint(
        op.f("ck_processing_state_lane_has_an_order"), "processing_state", "(lane IS NULL) = (lane_at IS NULL)"
    )
    # Those that are to be done, or may be again. A processed event stands in nobody's way.
    op.execute("""
        UPDATE processing_state s SET lane_at = e.received_at,
            lane = hashtextextended(concat_ws(E'\\x1f', e.tenant, e.source, e.subject), 0)
        FROM event e
        WHERE e.id = s.event_id AND e.subject IS NOT NULL AND s.state <> 'processed'
    """)
    op.create_index(
        "ix_processing_state_available",
        "processing_state",
        ["available_at"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'failed')"),
    )
    op.create_index(
        "ix_processing_state_lane",
        "processing_state",
        ["lane", "lane_at", "event_id"],
        unique=False,
        postgresql_where=sa.text("lane IS NOT NULL AND state IN ('queued', 'failed', 'processing')"),
    )
    op.create_index(
        "uq_processing_state_held_lane",
        "processing_state",
        ["held_lane"],
        unique=True,
        postgresql_where=sa.text("held_lane IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("uq_processing_state_held_lane", table_name="processing_state")
    op.drop_index("ix_processing_state_lane", table_name="processing_state")
    op.drop_index("ix_processing_state_available", table_name="processing_state")
    op.drop_constraint(op.f("ck_processing_state_lane_has_an_order"), "processing_state", type_="check")
    op.drop_constraint(op.f("ck_processing_state_lane_held_while_processing"), "processing_state", type_="check")
    op.drop_column("processing_state", "held_lane")
    op.drop_column("processing_state", "lane_at")
    op.drop_column("processing_state", "lane")
