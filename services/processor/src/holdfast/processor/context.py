"""What a handler is given beside its payload."""

import time
from collections.abc import Callable

from holdfast.domain.event import StoredEvent
from holdfast.runtime.logging import Logger
from holdfast.storage import Session

__all__ = ["Context", "Report"]

Report = Callable[[int, float, str | None], None]
"""Called with step (1, 2, …), fraction (0 to 1) and message."""

PROGRESS_INTERVAL_SECONDS = 0.1
"""A loop that reports every row must not flood the live window: reports in between are dropped, a final 1.0 is not."""


class Context:
    """One attempt at one event.

    Attributes:
        event: the event with its attributes; ``event.data`` is the payload before it became a model.
        attempt: which attempt this is, 1 for the first.
        session: a SQLAlchemy session in the transaction in which the event becomes ``processed``. What is written through
            it commits with that, or not at all. Neither commit nor roll back.
        log: a structured logger that knows the event.
        idempotency_key: the same in every attempt: hand it to the other side of a call that must not happen twice.
    """

    def __init__(
        self, *, event: StoredEvent, handler: str, attempt: int, session: Session, log: Logger, report: Report
    ) -> None:
        self.event = event
        self.attempt = attempt
        self.session = session
        self.log = log
        self.idempotency_key = f"{event.id}:{handler}"
        self._report = report
        self._step = 0
        self._reported_at = 0.0

    def progress(self, fraction: float, message: str | None = None) -> None:
        """Tell clients, now, how far the handler is; ``fraction`` is from 0 to 1, ``message`` at most 200 characters.

        Told once, whether or not the attempt succeeds later; never an error.
        """
        now = time.monotonic()
        if fraction < 1 and now - self._reported_at < PROGRESS_INTERVAL_SECONDS:
            return
        self._reported_at = now
        self._step += 1
        self._report(self._step, min(max(float(fraction), 0.0), 1.0), message and message[:200])
