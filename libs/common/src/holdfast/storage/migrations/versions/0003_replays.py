"""Replays by filter, the audit log, and indexes for lists of events."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

GIVEN_UP = "state IN ('dead', 'discarded')"


def upgrade() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=True),
        sa.Column("replay_id", sa.Uuid(), nullable=True),
        sa.Column(
            "detail", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_table(
        "replay_job",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("filter", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("rate_per_s", sa.Double(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("replayed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("skipped", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('running', 'done', 'cancelled')", name=op.f("ck_replay_job_state_is_known")),
        sa.CheckConstraint("(state = 'running') = (finished_at IS NULL)", name=op.f("ck_replay_job_finished_iff_over")),
        sa.CheckConstraint("rate_per_s > 0", name=op.f("ck_replay_job_rate_is_positive")),
        sa.CheckConstraint(
            "replayed >= 0 AND skipped >= 0 AND replayed + skipped <= total", name=op.f("ck_replay_job_counts")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replay_job")),
        sa.UniqueConstraint("tenant", "idempotency_key", name="uq_replay_job_request"),
    )
    op.create_index("ix_replay_job_running", "replay_job", ["next_at"], postgresql_where=sa.text("state = 'running'"))
    op.create_table(
        "replay_item",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("new_event_id", sa.Uuid(), nullable=True),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("outcome IN ('replayed', 'skipped')", name=op.f("ck_replay_item_outcome_is_known")),
        sa.CheckConstraint("(outcome IS NULL) = (done_at IS NULL)", name=op.f("ck_replay_item_outcome_iff_done")),
        sa.ForeignKeyConstraint(["job_id"], ["replay_job.id"], name=op.f("fk_replay_item_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "event_id", name=op.f("pk_replay_item")),
    )
    op.create_index(
        "ix_replay_item_pending", "replay_item", ["job_id", "event_id"], postgresql_where=sa.text("done_at IS NULL")
    )
    op.create_index("ix_event_tenant_id", "event", ["tenant", "id"])
    op.create_index(
        "ix_processing_state_given_up", "processing_state", ["state", "event_id"], postgresql_where=sa.text(GIVEN_UP)
    )
    op.create_index(
        "ix_processing_state_error_type",
        "processing_state",
        [sa.text("(last_error ->> 'type')"), "event_id"],
        postgresql_where=sa.text("last_error IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_processing_state_error_type", table_name="processing_state")
    op.drop_index("ix_processing_state_given_up", table_name="processing_state")
    op.drop_index("ix_event_tenant_id", table_name="event")
    op.drop_table("replay_item")
    op.drop_table("replay_job")
    op.drop_table("audit_log")
