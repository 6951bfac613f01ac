"""Data as the sender's bytes: JSON text goes to ``data_bytes`` too, marked by ``is_json``; no digest is stored any more.

Rewrites nothing: events that are there keep their ``data`` and ``data_digest``, and are read and recognised by them. Each
statement holds an exclusive lock on ``event`` for a moment. A release before this one writes what it always did, but does
not understand what this one writes: see docs/operations.md for the order in which to replace services.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_BACK = """
-- A digest that no release would have made: a repetition of these events is told to be a conflict, never to be new.
UPDATE event SET data = CASE WHEN is_json THEN CAST(convert_from(data_bytes, 'UTF8') AS jsonb) END,
                 data_bytes = CASE WHEN is_json THEN NULL ELSE data_bytes END,
                 data_digest = sha256(CAST(id::text AS bytea))
WHERE data_digest IS NULL
"""


def upgrade() -> None:
    op.add_column("event", sa.Column("is_json", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.alter_column("event", "data_digest", nullable=True)


def downgrade() -> None:
    op.execute(_BACK)  # fails where JSON has a NUL character, which jsonb does not take
    op.alter_column("event", "data_digest", nullable=False)
    op.drop_column("event", "is_json")
