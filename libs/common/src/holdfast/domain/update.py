"""An update: the news that an event has moved on, told in full."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from holdfast.domain.state import State
from holdfast.domain.topics import topics_of

__all__ = ["Update"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """Full state, never a delta: a client keeps the highest ``(version, step)`` it has seen and drops the rest.

    ``step`` is 0 for a transition and counts 1, 2, … for progress told within an attempt, which moves no version.
    """

    event_id: UUID
    tenant: str
    type: str
    audience: str | None
    state: State
    version: int
    attempt: int
    at: datetime
    detail: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0

    @property
    def topics(self) -> list[str]:
        """Where the update is published."""
        return topics_of(event_id=self.event_id, tenant=self.tenant, audience=self.audience)
