"""Schedules. One new table, small, and read by nobody of the release before."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

NOW, NO, NONE = sa.text("now()"), sa.text("false"), sa.text("0")


def upgrade() -> None:
    op.create_table(
        "schedule",
        sa.Column("id", sa.Uuid(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("tenant", "name", "cron", "timezone", "type")),
        *(sa.Column(name, sa.Text(), nullable=True) for name in ("source", "subject", "audience")),
        sa.Column("data", sa.LargeBinary(), nullable=True),
        sa.Column("missed", sa.Text(), server_default=sa.text("'latest'"), nullable=False),
        sa.Column("overlap", sa.Text(), server_default=sa.text("'allow'"), nullable=False),
        sa.Column("is_paused", sa.Boolean(), server_default=NO, nullable=False),
        sa.Column("is_declared", sa.Boolean(), server_default=NO, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_event_id", sa.Uuid(), nullable=True),
        sa.Column("skipped", sa.BigInteger(), server_default=NONE, nullable=False),
        sa.Column("failures", sa.Integer(), server_default=NONE, nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_schedule"),
        sa.UniqueConstraint("tenant", "name", name="uq_schedule_name"),
        sa.CheckConstraint("name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'", name=op.f("ck_schedule_name_is_known")),
        sa.CheckConstraint("missed IN ('latest', 'all', 'skip')", name=op.f("ck_schedule_missed_is_known")),
        sa.CheckConstraint("overlap IN ('allow', 'skip')", name=op.f("ck_schedule_overlap_is_known")),
        sa.CheckConstraint("(last_at IS NULL) = (last_event_id IS NULL)", name=op.f("ck_schedule_last_tick_is_whole")),
        sa.CheckConstraint("skipped >= 0 AND failures >= 0", name=op.f("ck_schedule_counts")),
    )
    op.create_index("ix_schedule_next_at", "schedule", ["next_at"], postgresql_where=sa.text("NOT is_paused"))


def downgrade() -> None:
    op.drop_table("schedule")
