"""Updates name their transaction, and a cursor of the outbox takes the place of a mark on every update.

``published_at`` and its index stay for the release before, whose processes mark their updates and relay what they find
unmarked; updates of this release are written as marked. A later release drops both.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TRANSACTION = "CAST(CAST(pg_current_xact_id() AS text) AS bigint)"

# What nobody has published yet is given an id that the first snapshot does not see. This transaction's own will not do:
# PostgreSQL leaves it out of the list of those that run.
FIRST_WINDOW = """
WITH taken AS (
    SELECT CAST(pg_current_snapshot() AS text) AS snapshot
), cursor AS (
    INSERT INTO outbox_cursor (id, confirmed, until, until_at) SELECT 1, snapshot, snapshot, now() FROM taken
)
UPDATE event_update SET transaction_id = CAST(split_part(snapshot, ':', 2) AS bigint) FROM taken WHERE published_at IS NULL
"""

# What the relay has not made sure of is left to that of the release before.
LAST_WINDOW = """
UPDATE event_update u SET published_at = NULL FROM outbox_cursor c
WHERE u.transaction_id >= CAST(split_part(c.confirmed, ':', 1) AS bigint)
  AND NOT pg_visible_in_snapshot(CAST(CAST(u.transaction_id AS text) AS xid8), CAST(c.confirmed AS pg_snapshot))
"""


def upgrade() -> None:
    # Without a default first: rows that are there have no transaction, and are neither rewritten nor indexed.
    op.add_column("event_update", sa.Column("transaction_id", sa.BigInteger(), nullable=True))
    op.execute(f"ALTER TABLE event_update ALTER COLUMN transaction_id SET DEFAULT {TRANSACTION}")
    op.create_index(
        "ix_event_update_transaction_id", "event_update", ["transaction_id"],
        postgresql_where=sa.text("transaction_id IS NOT NULL"),
    )  # fmt: skip
    op.create_table(
        "outbox_cursor",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("confirmed", sa.Text(), nullable=False),
        sa.Column("until", sa.Text(), nullable=False),
        sa.Column("until_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.text("'-infinity'"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outbox_cursor"),
        sa.CheckConstraint("id = 1", name="is_one"),
    )
    op.execute(FIRST_WINDOW)


def downgrade() -> None:
    op.execute(LAST_WINDOW)
    op.drop_table("outbox_cursor")
    op.drop_index("ix_event_update_transaction_id", table_name="event_update")
    op.drop_column("event_update", "transaction_id")
