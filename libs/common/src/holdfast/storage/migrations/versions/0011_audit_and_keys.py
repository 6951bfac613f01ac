"""Who did what from where, keys that replace keys, and discards by filter."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

AUDIT_INDEXES = {
    "ix_audit_log_tenant": ["tenant", "at", "id"],
    "ix_audit_log_action": ["tenant", "action", "at", "id"],
    "ix_audit_log_actor": ["tenant", "actor", "at", "id"],
    "ix_audit_log_actor_name": ["tenant", "actor_name", "at", "id"],
}

NEW_CHECKS = {
    "ck_replay_job_action_is_known": "action IN ('replay', 'discard')",
    "ck_replay_job_discarding_discards": "state <> 'discarding' OR action = 'discard'",
}

BEFORE = {
    "replay_job": {
        "state_is_known": "state IN ('running', 'done', 'cancelled')",
        "finished_iff_over": "(state = 'running') = (finished_at IS NULL)",
    },
    "replay_item": {"outcome_is_known": "outcome IN ('replayed', 'skipped')"},
}

AFTER = {
    "replay_job": {
        "state_is_known": "state IN ('running', 'discarding', 'done', 'cancelled')",
        "finished_iff_over": "(state IN ('running', 'discarding')) = (finished_at IS NULL)",
    },
    "replay_item": {"outcome_is_known": "outcome IN ('replayed', 'discarded', 'skipped')"},
}


def upgrade() -> None:
    for name in ("actor_name", "origin", "request_id"):
        op.add_column("audit_log", sa.Column(name, sa.Text(), nullable=True))
    # Keys are not renamed, so that the name of today is the name of then.
    op.execute("UPDATE audit_log SET actor_name = k.name FROM api_key k WHERE k.id = audit_log.actor")
    for name, columns in AUDIT_INDEXES.items():
        op.create_index(name, "audit_log", columns)
    op.create_index(
        "ix_audit_log_replay", "audit_log", ["replay_id"], postgresql_where=sa.text("replay_id IS NOT NULL")
    )
    op.add_column("api_key", sa.Column("replaced_by", sa.Text(), nullable=True))
    op.add_column("api_key", sa.Column("request", sa.Text(), nullable=True))
    op.create_unique_constraint("uq_api_key_request", "api_key", ["tenant", "request"])
    op.create_index("ix_api_key_tenant", "api_key", ["tenant", "created_at", "id"])
    op.add_column("replay_job", sa.Column("action", sa.Text(), server_default=sa.text("'replay'"), nullable=False))
    op.add_column("replay_job", sa.Column("created_by_name", sa.Text(), nullable=True))
    for name, condition in NEW_CHECKS.items():
        op.create_check_constraint(op.f(name), "replay_job", condition)
    _replace_checks(AFTER)
    _replace_running("state IN ('running', 'discarding')")


def downgrade() -> None:
    op.execute("UPDATE replay_job SET state = 'cancelled', finished_at = now() WHERE state = 'discarding'")
    op.execute("UPDATE replay_item SET outcome = 'replayed' WHERE outcome = 'discarded'")
    _replace_running("state = 'running'")
    _replace_checks(BEFORE)
    for name in NEW_CHECKS:
        op.drop_constraint(op.f(name), "replay_job")
    op.drop_column("replay_job", "created_by_name")
    op.drop_column("replay_job", "action")
    op.drop_index("ix_api_key_tenant", table_name="api_key")
    op.drop_constraint("uq_api_key_request", "api_key")
    op.drop_column("api_key", "request")
    op.drop_column("api_key", "replaced_by")
    for name in ("ix_audit_log_replay", *AUDIT_INDEXES):
        op.drop_index(name, table_name="audit_log")
    for name in ("request_id", "origin", "actor_name"):
        op.drop_column("audit_log", name)


def _replace_checks(checks: dict[str, dict[str, str]]) -> None:
    for table, conditions in checks.items():
        for name, condition in conditions.items():
            op.drop_constraint(op.f(f"ck_{table}_{name}"), table)
            op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, condition)


def _replace_running(condition: str) -> None:
    op.drop_index("ix_replay_job_running", table_name="replay_job")
    op.create_index("ix_replay_job_running", "replay_job", ["next_at"], postgresql_where=sa.text(condition))
