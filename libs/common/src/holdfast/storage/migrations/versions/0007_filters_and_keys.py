"""An index for every filter of the lists, replays that failed, and keys that expire.

On a large table build the indexes beforehand, with CREATE INDEX CONCURRENTLY and these names (docs/operations.md):
those that exist are left as they are.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

Indexes = dict[str, tuple[list[Any], str | None]]
"""Name → columns, and the condition of a partial index."""

EVENT_INDEXES: Indexes = {
    "ix_event_source": (["tenant", "source", "id"], None),
    "ix_event_type": (["tenant", "type", "id"], None),
    "ix_event_subject": (["tenant", "subject", "id"], "subject IS NOT NULL"),
    "ix_event_ce_id": (["tenant", "ce_id", "id"], None),
}
HANDLER, FINGERPRINT = "(last_error ->> 'handler')", "(last_error ->> 'fingerprint')"
STATE_INDEXES: Indexes = {
    "ix_processing_state_error_handler": ([sa.text(HANDLER), "event_id"], f"{HANDLER} IS NOT NULL"),
    "ix_processing_state_error_fingerprint": ([sa.text(FINGERPRINT), "event_id"], f"{FINGERPRINT} IS NOT NULL"),
    "ix_processing_state_failed": (["event_id"], "state = 'failed'"),
}


def upgrade() -> None:
    op.add_column("replay_job", sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("replay_job", sa.Column("last_error", sa.Text(), nullable=True))
    op.add_column("api_key", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("api_key", sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True))
    for table, indexes in (("event", EVENT_INDEXES), ("processing_state", STATE_INDEXES)):
        for name, (columns, where) in indexes.items():
            condition = None if where is None else sa.text(where)
            op.create_index(name, table, columns, postgresql_where=condition, if_not_exists=True)


def downgrade() -> None:
    for table, indexes in (("event", EVENT_INDEXES), ("processing_state", STATE_INDEXES)):
        for name in indexes:
            op.drop_index(name, table_name=table)
    op.drop_column("api_key", "last_used_at")
    op.drop_column("api_key", "expires_at")
    op.drop_column("replay_job", "last_error")
    op.drop_column("replay_job", "failures")
