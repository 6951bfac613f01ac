"""Identities of events that are gone: hashes, kept so that a repetition is still known as one (ADR 0052)."""

from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

__all__ = ["IDENTITY", "forget_identities"]

IDENTITY = """
substring(sha256(convert_to(concat_ws(E'\\x1f', {alias}.tenant, {alias}.ce_id, {alias}.source), 'UTF8')) FOR 16)
""".strip()
"""The hash of an event's identity, as SQL; none of its parts has a control character. 16 bytes: of 10^12 identities two are
the same with a chance of 10^-15."""

_FORGET = text("""
-- Parameter: limit.
DELETE FROM event_identity WHERE identity IN (
    SELECT identity FROM event_identity WHERE until <= now() ORDER BY until LIMIT :limit FOR UPDATE SKIP LOCKED
)
""")


def forget_identities(session: Session, *, limit: int) -> int:
    """Forget up to ``limit`` identities whose time is over; returns how many."""
    forgotten: Any = session.execute(_FORGET, {"limit": limit})
    return int(forgotten.rowcount)
