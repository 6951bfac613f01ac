"""Listing a tenant's replays, the newest first."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_replay_job_tenant", "replay_job", ["tenant", "id"])


def downgrade() -> None:
    op.drop_index("ix_replay_job_tenant", table_name="replay_job")
