"""Looking up what was done to an event (was a request carried out before?), and the events of an audience."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_audit_log_event", "audit_log", ["event_id"], postgresql_where=sa.text("event_id IS NOT NULL"))
    op.create_index(
        "ix_event_audience", "event", ["tenant", "audience", "id"], postgresql_where=sa.text("audience IS NOT NULL")
    )


def downgrade() -> None:
    op.drop_index("ix_event_audience", table_name="event")
    op.drop_index("ix_audit_log_event", table_name="audit_log")
