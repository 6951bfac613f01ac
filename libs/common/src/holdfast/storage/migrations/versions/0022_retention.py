"""Retention and erasure: four new tables, an index of the few groups with a subject, and how autovacuum sees deletions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0022"
down_revision = "0020"
branch_labels = None
depends_on = None

NOW, NONE = sa.text("now()"), sa.text("0")
RULED = "state IN ('processed', 'dead', 'discarded')"
TIME = sa.DateTime(timezone=True)

DROPPED = {
    "autovacuum_vacuum_scale_factor": "0.02",
    "autovacuum_vacuum_threshold": "2000",
    "autovacuum_vacuum_cost_delay": "1",
}


def upgrade() -> None:
    op.create_table(
        "event_identity",
        sa.Column("identity", sa.LargeBinary(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("until", TIME, nullable=False),
        sa.Column("made_at", TIME, server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("identity", name="pk_event_identity"),
        sa.CheckConstraint("octet_length(identity) = 16", name=op.f("ck_event_identity_identity_is_hashed")),
        sa.CheckConstraint(RULED, name=op.f("ck_event_identity_state_is_finished")),
        postgresql_with={"autovacuum_vacuum_scale_factor": "0.05", "autovacuum_vacuum_insert_scale_factor": "0.05"},
    )
    op.create_index("ix_event_identity_until", "event_identity", ["until"])
    op.create_table(
        "retention",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("days", sa.Integer(), nullable=True),
        sa.Column("changed_by", sa.Text(), nullable=False),
        sa.Column("changed_at", TIME, server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "state", name="pk_retention"),
        sa.CheckConstraint(RULED, name=op.f("ck_retention_state_is_finished")),
        sa.CheckConstraint("days BETWEEN 1 AND 36500", name=op.f("ck_retention_days_are_bounded")),
    )
    op.create_table(
        "retention_walk",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("marked", sa.Uuid(), nullable=True),
        sa.Column("passed", sa.Uuid(), nullable=True),
        sa.Column("next_at", TIME, server_default=NOW, nullable=False),
        sa.Column("days", sa.Integer(), nullable=True),
        sa.Column("dropped", sa.BigInteger(), server_default=NONE, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("tenant", "state", name="pk_retention_walk"),
        sa.CheckConstraint(RULED, name=op.f("ck_retention_walk_state_is_finished")),
        sa.CheckConstraint("dropped >= 0", name=op.f("ck_retention_walk_counts")),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index("ix_retention_walk_next_at", "retention_walk", ["next_at"])
    _create_erasures()
    op.create_index(
        "ix_event_group_subject", "event_group", ["tenant", "subject"],
        postgresql_where=sa.text("subject IS NOT NULL"),
    )  # fmt: skip
    for table in ("event", "processed_event_log"):
        settings = ", ".join(f"{name} = {value}" for name, value in DROPPED.items())
        op.execute(f"ALTER TABLE {table} SET ({settings})")


def _create_erasures() -> None:
    op.create_table(
        "erasure_job",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("subject_sha256", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_by_name", sa.Text(), nullable=True),
        sa.Column("created_at", TIME, server_default=NOW, nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'running'"), nullable=False),
        sa.Column("passed", sa.Uuid(), nullable=True),
        sa.Column("erased", sa.BigInteger(), server_default=NONE, nullable=False),
        sa.Column("waiting", sa.BigInteger(), server_default=NONE, nullable=False),
        sa.Column("next_at", TIME, server_default=NOW, nullable=False),
        sa.Column("finished_at", TIME, nullable=True),
        sa.Column("remains", postgresql.JSONB(), nullable=True),
        sa.Column("failures", sa.Integer(), server_default=NONE, nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_erasure_job"),
        sa.UniqueConstraint("tenant", "idempotency_key", name="uq_erasure_job_request"),
        sa.CheckConstraint("state IN ('running', 'done')", name=op.f("ck_erasure_job_state_is_known")),
        sa.CheckConstraint(
            "(state = 'done') = (finished_at IS NOT NULL)", name=op.f("ck_erasure_job_finished_iff_done")
        ),
        sa.CheckConstraint(
            "(state = 'done') = (subject IS NULL)", name=op.f("ck_erasure_job_subject_goes_with_the_end")
        ),
        sa.CheckConstraint("erased >= 0 AND waiting >= 0 AND failures >= 0", name=op.f("ck_erasure_job_counts")),
    )
    op.create_index("ix_erasure_job_running", "erasure_job", ["next_at"], postgresql_where=sa.text("state = 'running'"))
    op.create_index("ix_erasure_job_tenant", "erasure_job", ["tenant", "id"])


def downgrade() -> None:
    for table in ("event", "processed_event_log"):
        op.execute(f"ALTER TABLE {table} RESET ({', '.join(DROPPED)})")
    op.drop_index("ix_event_group_subject", "event_group")
    for table in ("erasure_job", "retention_walk", "retention", "event_identity"):
        op.drop_table(table)
