"""Events, their processing state, the processed-event log, the outbox, attempt errors and API keys."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_key",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scopes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
    )
    op.create_table(
        "event",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("ce_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("audience", sa.Text(), nullable=True),
        sa.Column("datacontenttype", sa.Text(), nullable=True),
        sa.Column("dataschema", sa.Text(), nullable=True),
        sa.Column(
            "extensions", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("data", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("data_bytes", sa.LargeBinary(), nullable=True),
        sa.Column("data_digest", sa.LargeBinary(), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("parent_id", sa.Uuid(), nullable=True),
        sa.Column("replay_of", sa.Uuid(), nullable=True),
        sa.CheckConstraint("data IS NULL OR data_bytes IS NULL", name=op.f("ck_event_one_kind_of_data")),
        sa.CheckConstraint("octet_length(data_digest) = 32", name=op.f("ck_event_digest_is_sha256")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event")),
        sa.UniqueConstraint("tenant", "source", "ce_id", name="uq_event_identity"),
    )
    op.create_table(
        "attempt_error",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("handler", sa.Text(), nullable=True),
        sa.Column("error_type", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("traceback", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["event_id"], ["event.id"], name=op.f("fk_attempt_error_event_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempt_error")),
    )
    op.create_index("ix_attempt_error_event_id", "attempt_error", ["event_id"], unique=False)
    op.create_table(
        "event_update",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "detail", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["event_id"], ["event.id"], name=op.f("fk_event_update_event_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("event_id", "version", name=op.f("pk_event_update")),
    )
    op.create_index(
        "ix_event_update_unpublished",
        "event_update",
        ["at"],
        unique=False,
        postgresql_where=sa.text("published_at IS NULL"),
    )
    op.create_table(
        "processed_event_log",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("handler", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("lease_token", sa.Uuid(), nullable=False),
        sa.Column("result", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("processed_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["event_id"], ["event.id"], name=op.f("fk_processed_event_log_event_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_processed_event_log")),
    )
    op.create_table(
        "processing_state",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("crashes", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("dispatches", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("available_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_dispatch_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lease_token", sa.Uuid(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("last_error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'processing') = (lease_token IS NOT NULL)", name=op.f("ck_processing_state_lease_iff_processing")
        ),
        sa.CheckConstraint(
            "(state IN ('processed', 'dead', 'discarded')) = (finished_at IS NOT NULL)",
            name=op.f("ck_processing_state_finished_iff_settled"),
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'processing', 'failed', 'processed', 'dead', 'discarded')",
            name=op.f("ck_processing_state_state_is_known"),
        ),
        sa.CheckConstraint(
            "(lease_token IS NULL) = (lease_expires_at IS NULL)", name=op.f("ck_processing_state_lease_expires")
        ),
        sa.CheckConstraint(
            "version >= 1 AND attempt >= 0 AND crashes >= 0 AND dispatches >= 0",
            name=op.f("ck_processing_state_counts"),
        ),
        sa.ForeignKeyConstraint(
            ["event_id"], ["event.id"], name=op.f("fk_processing_state_event_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_processing_state")),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index(
        "ix_processing_state_dead",
        "processing_state",
        ["finished_at"],
        unique=False,
        postgresql_where=sa.text("state = 'dead'"),
    )
    op.create_index(
        "ix_processing_state_due",
        "processing_state",
        ["next_dispatch_at"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'failed')"),
    )
    op.create_index(
        "ix_processing_state_lease",
        "processing_state",
        ["lease_expires_at"],
        unique=False,
        postgresql_where=sa.text("state = 'processing'"),
    )


def downgrade() -> None:
    op.drop_index(
        "ix_processing_state_lease", table_name="processing_state", postgresql_where=sa.text("state = 'processing'")
    )
    op.drop_index(
        "ix_processing_state_due",
        table_name="processing_state",
        postgresql_where=sa.text("state IN ('queued', 'failed')"),
    )
    op.drop_index("ix_processing_state_dead", table_name="processing_state", postgresql_where=sa.text("state = 'dead'"))
    op.drop_table("processing_state")
    op.drop_table("processed_event_log")
    op.drop_index(
        "ix_event_update_unpublished", table_name="event_update", postgresql_where=sa.text("published_at IS NULL")
    )
    op.drop_table("event_update")
    op.drop_index("ix_attempt_error_event_id", table_name="attempt_error")
    op.drop_table("attempt_error")
    op.drop_table("event")
    op.drop_table("api_key")
