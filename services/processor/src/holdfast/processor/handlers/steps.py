"""What ``ctx.step`` and ``ctx.sleep`` stand on, and why a handler may have to stop there."""

from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["NO_STEPS", "NO_STEPS_ON_LOOP", "Sleeping", "Steps", "Stopped"]

NO_STEPS = (
    "a transactional handler has no ctx.step and no ctx.sleep: all that it writes through ctx.session is committed together"
    " or not at all, so there is nothing to keep of an attempt that fails. Declare it with transactional=False, or use"
    " ctx.emit() for what is to happen in a further event"
)

NO_STEPS_ON_LOOP = (
    "an async def handler has no ctx.step and no ctx.sleep, which would hold up the event loop and every handler on it until"
    " PostgreSQL has stored the step. Declare the handler with def and transactional=False; or hand ctx.idempotency_key"
    " to the other side, and raise Snooze(seconds) to go on later"
)
"""What comes before says where the call stands."""


class Stopped(BaseException):
    """Raised within a handler that must go no further, at a step: its event may be with another worker, or it was told to
    stop. Not an ``Exception``: handlers must not swallow it.
    """


class Sleeping(BaseException):
    """Raised within a handler that sleeps: the attempt ends, and another one goes on past the sleep.

    Not an ``Exception``: handlers must not swallow it. ``after`` is in seconds.
    """

    def __init__(self, after: float) -> None:
        super().__init__(f"sleeps for {after:g} s; let this out of the handler, it is how ctx.sleep ends the attempt")
        self.after = after


class Steps(Protocol):
    """The steps of one attempt."""

    def run(self, name: str, function: Callable[[], Any]) -> Any:
        """See :meth:`Context.step`."""

    def sleep(self, duration: object, name: str) -> None:
        """See :meth:`Context.sleep`."""
