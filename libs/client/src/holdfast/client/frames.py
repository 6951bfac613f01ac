"""The frames that a watch yields."""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Frame", "Gap", "Status", "Subscribed", "UpdateReceived"]


@dataclass(frozen=True, slots=True)
class UpdateReceived:
    """A transition of an event, or progress. ``event`` is its full state; resume from ``pos`` to get what follows."""

    topic: str
    pos: str
    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The topic is live from ``pos`` on.

    ``recovered``: whether all missed updates came before this; ``None`` if no position was sent.
    """

    topic: str
    pos: str
    recovered: bool | None


@dataclass(frozen=True, slots=True)
class Gap:
    """Updates were missed and will not be sent: refetch what you show, after a random time up to ``jitter_ms``."""

    topic: str
    pos: str
    reason: str
    jitter_ms: int = field(default=0, compare=False)
    """Milliseconds; spreads the load of many clients that refetch at once. Not compared by ``==``."""


@dataclass(frozen=True, slots=True)
class Status:
    """``ok``; ``degraded``: updates may be late; or ``disconnected``.

    This client itself yields ``disconnected``, once per outage. It reconnects until it succeeds, and the next ``Subscribed``
    ends the outage. ``detail`` is the reason.
    """

    state: str
    detail: str = field(default="", compare=False)


Frame = UpdateReceived | Subscribed | Gap | Status
