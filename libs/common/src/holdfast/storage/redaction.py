"""Taking a subject, or all that was said of events, out of what operators left behind: the audit log, replays and groups.
Nothing of an event's data is there, but a filter that was asked for may name the subject.
"""

import json
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

__all__ = ["ERASED", "redact", "redact_all", "redacted"]

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

_WITHOUT_TEXTS = """
(SELECT jsonb_object_agg(key, CASE WHEN key IN ('state', 'received_after', 'received_before') THEN value
                                   ELSE to_jsonb(CAST(:erased AS text)) END)
 FROM jsonb_each({filter}))
""".strip()
"""A filter with nothing of its events but where they stood and when they came."""

_REDACT_ALL = text(f"""
UPDATE audit_log SET detail = jsonb_set(detail, '{{filter}}', {_WITHOUT_TEXTS.format(filter="detail -> 'filter'")})
WHERE tenant = :tenant AND action IN ('start_replay', 'start_discard') AND jsonb_typeof(detail -> 'filter') = 'object'
  AND detail -> 'filter' <> '{{}}'
""")  # noqa: S608

_REDACT_ALL_REPLAYS = text(f"""
UPDATE replay_job SET filter = {_WITHOUT_TEXTS.format(filter="filter")} WHERE tenant = :tenant AND filter <> '{{}}'
""")  # noqa: S608


def redact(session: Session, *, tenant: str, subject: str) -> None:
    """Replace a subject wherever a tenant's operators named it. Who did what, when and from where stays."""
    quoted = json.dumps(subject, ensure_ascii=False)[1:-1]
    for row in session.execute(_QUOTING, {"tenant": tenant, "quoted": quoted}).all():
        detail = redacted(row.detail, subject)
        if detail != row.detail:
            session.execute(_REDACT, {"id": row.id, "detail": json.dumps(detail)})
    session.execute(_REDACT_REPLAYS, {"tenant": tenant, "subject": subject, "erased": ERASED})
    session.execute(_REDACT_GROUPS, {"tenant": tenant, "subject": subject})


def redact_all(session: Session, *, tenant: str) -> None:
    """Replace whatever a tenant's operators chose events by, but their state and their time. Who did what and when stays."""
    session.execute(_REDACT_ALL, {"tenant": tenant, "erased": ERASED})
    session.execute(_REDACT_ALL_REPLAYS, {"tenant": tenant, "erased": ERASED})


def redacted(value: Any, subject: str) -> Any:
    """A JSON value with :data:`ERASED` in place of the subject, where it is a text or, if it is long enough, part of one."""
    if isinstance(value, dict):
        return {key: redacted(each, subject) for key, each in value.items()}
    if isinstance(value, list):
        return [redacted(each, subject) for each in value]
    if not isinstance(value, str) or value == subject:
        return ERASED if isinstance(value, str) else value
    return value.replace(subject, ERASED) if len(subject) >= SHORTEST_PART else value
