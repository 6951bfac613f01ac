"""Who runs first, how many at once, and what is paused: new tables, and columns that take no time to add.

The one new index holds open events only. On a large backlog build it beforehand, with CREATE INDEX CONCURRENTLY and its
name (docs/operations.md).
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

CLAIMABLE = "state IN ('queued', 'failed')"
NOW = sa.text("now()")


def upgrade() -> None:
    op.add_column("processing_state", sa.Column("tenant_name", sa.Text(), server_default=sa.text("''"), nullable=False))
    op.add_column(
        "processing_state", sa.Column("priority", sa.SmallInteger(), server_default=sa.text("5"), nullable=False)
    )
    op.add_column("processing_state", sa.Column("pool", sa.Text(), server_default=sa.text("''"), nullable=False))
    op.add_column("processing_state", sa.Column("waits_in", sa.Text(), nullable=True))
    op.add_column("processing_state", sa.Column("held_limit", sa.Text(), nullable=True))
    op.create_index(
        "ix_processing_state_turn",
        "processing_state",
        ["pool", "tenant_name", "priority", "available_at"],
        postgresql_where=sa.text(f"waiting_since IS NULL AND {CLAIMABLE}"),
        if_not_exists=True,
    )
    op.create_index(
        "ix_processing_state_waits_in",
        "processing_state",
        ["waits_in", "waiting_since", "event_id"],
        postgresql_where=sa.text(f"waits_in IS NOT NULL AND unserved_type IS NOT NULL AND {CLAIMABLE}"),
    )
    op.create_index(
        "ix_processing_state_held_limit",
        "processing_state",
        ["held_limit"],
        postgresql_where=sa.text("held_limit IS NOT NULL AND state = 'processing'"),
    )
    _create_tables()


def _create_tables() -> None:
    op.create_table(
        "tenant",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("weight", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("backlog_seconds", sa.Float(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_tenant"),
        sa.CheckConstraint("weight BETWEEN 1 AND 100", name=op.f("ck_tenant_weight")),
        sa.CheckConstraint("backlog_seconds >= 0", name=op.f("ck_tenant_backlog_seconds")),
    )
    op.create_table(
        "handler_route",
        sa.Column("pattern", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), server_default=sa.text("5"), nullable=False),
        sa.Column("pool", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.PrimaryKeyConstraint("pattern", name="pk_handler_route"),
        sa.CheckConstraint("priority BETWEEN 0 AND 9", name=op.f("ck_handler_route_priority")),
    )
    op.create_table(
        "pause",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=True),
        sa.Column("paused_by", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("paused_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_pause"),
        sa.CheckConstraint("kind IN ('handler', 'type', 'tenant', 'pool')", name=op.f("ck_pause_kind")),
        sa.CheckConstraint("(kind IN ('type', 'tenant')) = (tenant IS NOT NULL)", name=op.f("ck_pause_tenant")),
    )
    op.create_index("uq_pause_what", "pause", ["kind", "name", sa.text("coalesce(tenant, '')")], unique=True)
    op.create_table(
        "flow_version",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_flow_version"),
        sa.CheckConstraint("id = 1", name=op.f("ck_flow_version_is_one")),
    )
    op.execute("INSERT INTO flow_version (id) VALUES (1)")
    op.create_table(
        "rate_start",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("free_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", "slot", name="pk_rate_start"),
    )
    op.create_index("ix_rate_start_free_at", "rate_start", ["free_at"])


def downgrade() -> None:
    for table in ("rate_start", "flow_version", "pause", "handler_route", "tenant"):
        op.drop_table(table)
    op.drop_index("ix_processing_state_held_limit", table_name="processing_state")
    op.drop_index("ix_processing_state_waits_in", table_name="processing_state")
    op.drop_index("ix_processing_state_turn", table_name="processing_state")
    for column in ("held_limit", "waits_in", "pool", "priority", "tenant_name"):
        op.drop_column("processing_state", column)
