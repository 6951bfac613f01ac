"""Revoked live tokens, of which Redis has a copy."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "token_revocation",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('token', 'subject')", name=op.f("ck_token_revocation_kind_is_known")),
        sa.CheckConstraint("octet_length(name) BETWEEN 1 AND 255", name=op.f("ck_token_revocation_name_is_bounded")),
        sa.PrimaryKeyConstraint("tenant", "kind", "name", name=op.f("pk_token_revocation")),
        sa.UniqueConstraint("seq", name=op.f("uq_token_revocation_seq")),
    )
    op.create_index("ix_token_revocation_revoked_at", "token_revocation", ["revoked_at"])


def downgrade() -> None:
    op.drop_table("token_revocation")
