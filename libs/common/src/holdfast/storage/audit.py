"""The audit log: what operators did."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import insert
from sqlalchemy.orm import Session

from holdfast.storage.tables import AuditEntry

__all__ = ["Actor", "note"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Whose key it is, and for which tenant it speaks."""

    tenant: str
    key_id: str


def note(
    session: Session,
    actor: Actor,
    action: str,
    *,
    event_id: UUID | None = None,
    replay_id: UUID | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write down an action, in the transaction that carries it out: neither is there without the other."""
    values = {
        "tenant": actor.tenant, "actor": actor.key_id, "action": action, "event_id": event_id, "replay_id": replay_id,
        "detail": dict(detail or {}),
    }  # fmt: skip
    session.execute(insert(AuditEntry).values(values))
