"""What a watch yields."""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Frame", "Gap", "Status", "Subscribed", "UpdateReceived"]


@dataclass(frozen=True, slots=True)
class UpdateReceived:
    """An event moved on. ``event`` is its full state; ``pos`` the position to resume after it."""

    topic: str
    pos: str
    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The topic is live from ``pos`` on. ``recovered``: all that was missed came before this (``None``: nothing asked)."""

    topic: str
    pos: str
    recovered: bool | None


@dataclass(frozen=True, slots=True)
class Gap:
    """Updates are missing and are not coming: refetch what you show, after a random time up to ``jitter_ms``."""

    topic: str
    pos: str
    reason: str
    jitter_ms: int = field(default=0, compare=False)
    """Advice on manners; two gaps are the same gap whatever it is."""


@dataclass(frozen=True, slots=True)
class Status:
    """``ok``, or ``degraded``: updates may be late. ``disconnected``, said once an outage by this client: it tries again
    until it succeeds, and ``detail`` says what stands in the way; the next ``Subscribed`` ends it.
    """

    state: str
    detail: str = field(default="", compare=False)


Frame = UpdateReceived | Subscribed | Gap | Status
