"""What the audit log says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from holdfast.client.answers import time_of

__all__ = ["AuditEntry"]


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Something that was done on somebody's behalf."""

    at: datetime
    """With a time zone."""
    action: str
    """Such as ``replay``, ``start_discard`` or ``revoke_key``."""
    actor_id: str
    """Id of the key; ``oidc:subject`` of a person; ``command:user@host`` for a command on the database; ``maintenance``."""
    actor_name: str | None
    """The name of the key at the time, or of the person; ``None`` of others."""
    origin: str | None
    """The address that the request came from, ``cli`` or ``maintenance``."""
    request_id: str | None
    event_id: str | None
    replay_id: str | None
    """Of a replay or a discard by filter."""
    detail: Mapping[str, Any] = field(hash=False)
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The entry as the API sent it, with any fields that this client does not know."""

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(
            at=time_of(body["at"]),
            action=body["action"],
            actor_id=body["actor"]["id"],
            actor_name=body["actor"]["name"],
            origin=body["origin"],
            request_id=body["request_id"],
            event_id=body["event_id"],
            replay_id=body["replay_id"],
            detail=body["detail"],
            raw=body,
        )
