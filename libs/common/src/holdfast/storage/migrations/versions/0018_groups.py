"""Groups of events: two new tables, and a column of ``processing_state`` that takes no time to add."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

NONE = sa.text("0")


def upgrade() -> None:
    op.create_table(
        "event_group",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.Uuid(), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("size", "open")),
        *(
            sa.Column(name, sa.Integer(), server_default=NONE, nullable=False)
            for name in ("processed", "dead", "discarded")
        ),
        sa.Column("type", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=True) for name in ("subject", "audience", "data")),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_event_group"),
        sa.ForeignKeyConstraint(["parent_id"], ["event.id"], name="fk_event_group_parent_id", ondelete="CASCADE"),
        sa.CheckConstraint(
            "open >= 0 AND size = open + processed + dead + discarded", name=op.f("ck_event_group_members_add_up")
        ),
        sa.CheckConstraint("completed_at IS NULL OR open = 0", name=op.f("ck_event_group_completed_when_none_is_open")),
    )
    op.create_index("ix_event_group_parent_id", "event_group", ["parent_id"])
    op.create_table(
        "event_group_member",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("group_id", sa.Uuid(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("event_id", name="pk_event_group_member"),
        sa.ForeignKeyConstraint(["event_id"], ["event.id"], name="fk_event_group_member_event_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["group_id"], ["event_group.id"], name="fk_event_group_member_group_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_event_group_member_group_id", "event_group_member", ["group_id"])
    op.add_column("processing_state", sa.Column("group_id", sa.Uuid(), nullable=True))


def downgrade() -> None:
    op.drop_column("processing_state", "group_id")
    op.drop_table("event_group_member")
    op.drop_table("event_group")
