"""Counters of what happened, and a cursor that says which updates they have.

Counting begins here: what happened before is in no chart. How many events are open or dead is counted once, in the snapshot
that the cursor begins with, and kept from then on.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

FLOW = ("accepted", "processed", "failed", "retried", "dead", "discarded", "replayed", "lost")
OUTCOMES = ("processed", "failed", "dead", "lost")
HISTOGRAMS = ("run", "wait", "end_to_end")
ROOM = {"fillfactor": 70}

# Both in one statement, so that they are of one snapshot. Every state that is counted has a partial index.
BEGIN = """
WITH cursor AS (
    INSERT INTO statistics_cursor (id, counted) SELECT 1, CAST(pg_current_snapshot() AS text)
)
INSERT INTO state_count (tenant, state, events)
SELECT e.tenant, s.state, count(*)
FROM (
    SELECT event_id, state FROM processing_state WHERE state IN ('queued', 'failed')
    UNION ALL SELECT event_id, state FROM processing_state WHERE state = 'processing'
    UNION ALL SELECT event_id, state FROM processing_state WHERE state = 'dead'
) s JOIN event e ON e.id = s.event_id
GROUP BY e.tenant, s.state
"""


def upgrade() -> None:
    op.create_table(
        "event_statistics", *_step(), *map(_count, FLOW),
        sa.PrimaryKeyConstraint("tenant", "step_seconds", "at", name="pk_event_statistics"),
        postgresql_with=ROOM,
    )  # fmt: skip
    op.create_table(
        "handler_statistics", *_step(),
        sa.Column("kind", sa.Text(), nullable=False), sa.Column("name", sa.Text(), nullable=False),
        *map(_count, OUTCOMES),
        *(sa.Column(name, sa.ARRAY(sa.BigInteger()), nullable=False) for name in HISTOGRAMS),
        sa.PrimaryKeyConstraint("tenant", "step_seconds", "at", "kind", "name", name="pk_handler_statistics"),
        sa.CheckConstraint("kind IN ('handler', 'type', 'other')", name="kind_is_known"),
        postgresql_with=ROOM,
    )  # fmt: skip
    op.create_table(
        "statistics_name",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "kind", "name", name="pk_statistics_name"),
    )
    op.create_table(
        "state_count",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "state", name="pk_state_count"),
        postgresql_with=ROOM,
    )
    op.create_table(
        "statistics_cursor",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("counted", sa.Text(), nullable=False),
        sa.Column("counted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.text("'-infinity'"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_statistics_cursor"),
        sa.CheckConstraint("id = 1", name="is_one"),
    )
    op.execute(BEGIN)


def downgrade() -> None:
    for table in ("statistics_cursor", "state_count", "statistics_name", "handler_statistics", "event_statistics"):
        op.drop_table(table)


def _step() -> list["sa.Column[Any]"]:
    return [
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("step_seconds", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    ]


def _count(name: str) -> "sa.Column[Any]":
    return sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False)
