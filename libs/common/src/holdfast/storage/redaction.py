"""Taking a subject out of what operators left behind: the audit log, replays and groups. Nothing of an event's data is there,
but a filter that was asked for may name the subject.
"""

import json
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

__all__ = ["ERASED", "forget_items", "redact", "redacted"]

ERASED = "[erased]"
"""What stands in the place of a subject."""

SHORTEST_PART = 4
"""Characters of a subject that is also replaced within a longer text. A shorter one, "1" say, is part of much else."""

_QUOTING = text("""
SELECT id, detail FROM audit_log WHERE tenant = :tenant AND strpos(CAST(detail AS text), :quoted) > 0
""")

_REDACT = text("UPDATE audit_log SET detail = CAST(:detail AS jsonb) WHERE id = :id")

_REDACT_REPLAYS = text("""
UPDATE replay_job SET filter = jsonb_set(filter, '{subject}', to_jsonb(CAST(:erased AS text)))
WHERE tenant = :tenant AND filter ->> 'subject' = :subject
""")

_REDACT_GROUPS = text("""
UPDATE event_group SET subject = NULL, audience = NULL, data = NULL WHERE tenant = :tenant AND subject = :subject
""")

_FORGET_ITEMS = text("""
-- Those that are still to be done are skipped by their replay, since their event is gone.
DELETE FROM replay_item i USING replay_job j
WHERE j.tenant = :tenant AND i.job_id = j.id AND i.event_id = ANY (CAST(:event_ids AS uuid[])) AND i.done_at IS NOT NULL
""")


def redact(session: Session, *, tenant: str, subject: str) -> None:
    """Replace a subject wherever a tenant's operators named it. Who did what, when and from where stays."""
    quoted = json.dumps(subject, ensure_ascii=False)[1:-1]
    for row in session.execute(_QUOTING, {"tenant": tenant, "quoted": quoted}).all():
        detail = redacted(row.detail, subject)
        if detail != row.detail:
            session.execute(_REDACT, {"id": row.id, "detail": json.dumps(detail)})
    session.execute(_REDACT_REPLAYS, {"tenant": tenant, "subject": subject, "erased": ERASED})
    session.execute(_REDACT_GROUPS, {"tenant": tenant, "subject": subject})


def redacted(value: Any, subject: str) -> Any:
    """A JSON value with :data:`ERASED` in place of the subject, where it is a text or, if it is long enough, part of one."""
    if isinstance(value, dict):
        return {key: redacted(each, subject) for key, each in value.items()}
    if isinstance(value, list):
        return [redacted(each, subject) for each in value]
    if not isinstance(value, str) or value == subject:
        return ERASED if isinstance(value, str) else value
    return value.replace(subject, ERASED) if len(subject) >= SHORTEST_PART else value


def forget_items(session: Session, event_ids: Any, *, tenant: str) -> None:
    """Forget which replays had these events."""
    if event_ids:
        session.execute(_FORGET_ITEMS, {"tenant": tenant, "event_ids": list(event_ids)})
