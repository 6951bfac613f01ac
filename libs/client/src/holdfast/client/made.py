"""What the handlers of an event have stored and made: steps, and groups of events."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from holdfast.client.answers import optional_time, time_of

__all__ = ["EventGroup", "Step"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a handler (``ctx.step``), or one sleep."""

    name: str
    handler: str
    attempt: int
    """The attempt that did it, from 1."""
    duration_ms: int
    stored_at: datetime
    """With a time zone, as is ``wake_at``."""
    wake_at: datetime | None
    """When a sleep ends; ``None`` for a step."""
    result: Any = field(repr=False, hash=False)
    """``None`` for a step without one, for a sleep, and for keys without the scope ``operate``."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The step as the API sent it, with any fields that this client does not know."""

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(
            name=body["name"],
            handler=body["handler"],
            attempt=body["attempt"],
            duration_ms=body["duration_ms"],
            stored_at=time_of(body["stored_at"]),
            wake_at=optional_time(body["wake_at"]),
            result=body.get("result"),
            raw=body,
        )


@dataclass(frozen=True, slots=True)
class EventGroup:
    """Events that a handler made together (``ctx.emit_group``), and how far they are."""

    group_id: str
    type: str
    """Of the event that follows the last of them."""
    size: int
    open: int
    """Members that have not ended; the others did first as ``processed``, ``dead`` or ``discarded``."""
    processed: int
    dead: int
    discarded: int
    created_at: datetime
    """With a time zone, as is ``completed_at``."""
    completed_at: datetime | None
    """When the last of them ended; ``None`` while one is open."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The group as the API sent it, with any fields that this client does not know."""

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(
            group_id=body["group_id"],
            type=body["type"],
            size=body["size"],
            open=body["open"],
            processed=body["processed"],
            dead=body["dead"],
            discarded=body["discarded"],
            created_at=time_of(body["created_at"]),
            completed_at=optional_time(body["completed_at"]),
            raw=body,
        )
