"""A large history: one index fewer on events, statistics of errors, suspects found at once, autovacuum in time.

On a large table build both indexes beforehand, with CREATE INDEX CONCURRENTLY and these names (docs/operations.md):
those that exist are taken.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

IDENTITY = "uq_event_identity_by_id"
"""The name that the new index of the identity has until it takes the place of the old one."""

STATE, UPDATE = "processing_state", "event_update"

PARAMETERS = {
    STATE: {
        "fillfactor": 90,
        "autovacuum_vacuum_scale_factor": 0.01,
        "autovacuum_vacuum_threshold": 2000,
        "autovacuum_analyze_scale_factor": 0.02,
        "autovacuum_vacuum_cost_delay": 1,
    },
    UPDATE: {
        "autovacuum_vacuum_scale_factor": 0.01,
        "autovacuum_vacuum_threshold": 2000,
        "autovacuum_vacuum_insert_scale_factor": 0.05,
        "autovacuum_vacuum_cost_delay": 1,
    },
    "event": {"autovacuum_vacuum_insert_scale_factor": 0.05, "autovacuum_analyze_scale_factor": 0.02},
    "processed_event_log": {"autovacuum_vacuum_insert_scale_factor": 0.05},
}

ERROR_PARTS = ("type", "handler", "fingerprint")


def upgrade() -> None:
    _replace_identity(IDENTITY, "tenant, ce_id, source")
    op.drop_index("ix_event_ce_id", table_name="event")
    op.create_index(
        "ix_processing_state_suspect",
        STATE,
        ["available_at"],
        postgresql_where=sa.text("crashes > 0 AND state IN ('queued', 'failed')"),
        if_not_exists=True,
    )
    for part in ERROR_PARTS:
        op.execute(f"CREATE STATISTICS st_{STATE}_error_{part} ON (last_error ->> '{part}') FROM {STATE}")
    for table, parameters in PARAMETERS.items():
        op.execute(f"ALTER TABLE {table} SET ({', '.join(f'{name} = {value}' for name, value in parameters.items())})")


def downgrade() -> None:
    for table, parameters in PARAMETERS.items():
        op.execute(f"ALTER TABLE {table} RESET ({', '.join(parameters)})")
    op.execute(f"ALTER TABLE {STATE} SET (fillfactor = 70)")
    for part in ERROR_PARTS:
        op.execute(f"DROP STATISTICS st_{STATE}_error_{part}")
    op.drop_index("ix_processing_state_suspect", table_name=STATE)
    op.create_index("ix_event_ce_id", "event", ["tenant", "ce_id", "id"])
    _replace_identity("uq_event_identity_by_source", "tenant, source, ce_id")


def _replace_identity(name: str, columns: str) -> None:
    """Under the same name, which the statements of every release know the constraint by."""
    op.execute(f"CREATE UNIQUE INDEX IF NOT EXISTS {name} ON event ({columns})")
    op.execute(
        "ALTER TABLE event DROP CONSTRAINT uq_event_identity,"
        f" ADD CONSTRAINT uq_event_identity UNIQUE USING INDEX {name}"
    )
