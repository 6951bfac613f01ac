"""Activity per repository."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "github_repository",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("last_activity_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("open_pull_requests", sa.Integer(), nullable=False),
        sa.Column("open_issues", sa.Integer(), nullable=False),
    )
    op.create_table(
        "github_activity_count",
        sa.Column("repository", sa.Text(), sa.ForeignKey("github_repository.name"), primary_key=True),
        sa.Column("type", sa.Text(), primary_key=True),
        sa.Column("count", sa.Integer(), sa.CheckConstraint("count > 0"), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("github_activity_count")
    op.drop_table("github_repository")
