"""One claimed event, from the moment a thread begins with it until it has ended."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from holdfast.domain.event import Lease
from holdfast.processor.handlers.registry import Handler
from holdfast.runtime import logging

__all__ = ["Turn", "after_all"]


@dataclass(slots=True, eq=False)
class Turn:
    """An event that a thread has begun with.

    Attributes:
        started: when its handler began, in seconds of the monotonic clock.
        end: to be called once, when the event has ended or was given back.
    """

    lease: Lease
    handler: Handler | None
    log: logging.Logger
    end: Callable[[], object]
    started: float = field(default_factory=time.monotonic)

    @staticmethod
    def of(lease: Lease, handler: Handler | None, end: Callable[[], object]) -> "Turn":
        """With a logger that knows the event."""
        event = lease.event
        log = logging.get(__name__).bind(
            event_id=str(event.id), event_type=event.type, attempt=lease.attempt, tenant=event.tenant,
            handler=handler.name if handler else None,
        )  # fmt: skip
        return Turn(lease, handler, log, end)


def after_all(count: int, end: Callable[[], object]) -> Callable[[], object]:
    """Calls ``end`` when it has been called ``count`` times, from whatever threads."""
    left = [None] * (count - 1)

    def ended() -> None:
        try:
            left.pop()  # atomic
        except IndexError:
            end()

    return ended
