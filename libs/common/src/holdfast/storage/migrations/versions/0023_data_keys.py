"""Data keys: a new table, and a column of ``event`` and of ``event_group`` that takes no time to add.

Downgrading refuses while sealed data is there: no release before this one could read it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_IS_SEALED = """
SELECT EXISTS (SELECT FROM event WHERE data_key_id IS NOT NULL)
    OR EXISTS (SELECT FROM event_group WHERE data_key_id IS NOT NULL)
"""


def upgrade() -> None:
    op.create_table(
        "data_key",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("kek_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_data_key"),
        sa.CheckConstraint("octet_length(wrapped) = 61", name=op.f("ck_data_key_wrapped_is_a_key")),
        sa.CheckConstraint("kek_id ~ '^[0-9a-f]{16}$'", name=op.f("ck_data_key_kek_id_is_known")),
    )
    op.create_index(
        "uq_data_key_tenant", "data_key", ["tenant"], unique=True, postgresql_where=sa.text("retired_at IS NULL")
    )
    op.create_index("ix_data_key_kek_id", "data_key", ["kek_id", "id"])
    for table in ("event", "event_group"):
        op.add_column(table, sa.Column("data_key_id", sa.Uuid(), nullable=True))


def downgrade() -> None:
    if op.get_bind().execute(sa.text(_IS_SEALED)).scalar_one():
        raise RuntimeError("there is sealed data, which no release before this one can read: erase those events first")
    for table in ("event_group", "event"):
        op.drop_column(table, "data_key_id")
    op.drop_table("data_key")
