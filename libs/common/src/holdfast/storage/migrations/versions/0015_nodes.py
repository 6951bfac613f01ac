"""What runs: nodes and their workers, as they said last. Two new tables, small and read by nobody of the release before."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

NOW, NO = sa.text("now()"), sa.text("false")


def upgrade() -> None:
    op.create_table(
        "node",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("types", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("drain_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("drained_by", sa.Text(), nullable=True),
        sa.CheckConstraint("octet_length(id) BETWEEN 1 AND 64", name=op.f("ck_node_id_is_bounded")),
        sa.CheckConstraint(
            "drain_since IS NULL OR service = 'processor'", name=op.f("ck_node_only_processors_drain")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_node")),
    )  # fmt: skip
    op.create_table(
        "node_worker",
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("beat_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("polled_seconds", sa.Double(), nullable=True),
        sa.Column("slots", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("busy", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("is_suspect", sa.Boolean(), server_default=NO, nullable=False),
        sa.Column("is_draining", sa.Boolean(), server_default=NO, nullable=False),
        sa.Column("is_broker_away", sa.Boolean(), server_default=NO, nullable=False),
        sa.Column("running", postgresql.JSONB(), server_default=sa.text("'[]'::jsonb"), nullable=False),
        sa.CheckConstraint("slots >= 0 AND busy >= 0", name=op.f("ck_node_worker_counts")),
        sa.ForeignKeyConstraint(
            ["node_id"], ["node.id"], name=op.f("fk_node_worker_node_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("node_id", "name", name=op.f("pk_node_worker")),
        postgresql_with={"fillfactor": 50},
    )  # fmt: skip


def downgrade() -> None:
    op.drop_table("node_worker")
    op.drop_table("node")
