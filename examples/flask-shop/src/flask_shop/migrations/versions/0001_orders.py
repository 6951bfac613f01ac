"""Orders."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "flask_shop_order",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("item", sa.Text(), nullable=False),
        sa.Column("is_packed", sa.Boolean(), nullable=False),
        sa.Column("is_receipt_sent", sa.Boolean(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("flask_shop_order")
