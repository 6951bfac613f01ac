"""Finding due events without a doorbell: the processor's own way, which needs neither Redis nor maintenance."""

import random
import threading
import time
from collections.abc import Callable

from holdfast.domain.errors import DatabaseUnavailable
from holdfast.domain.event import Lease
from holdfast.processor.worker.crew import Crew, Runs
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log, Metrics

__all__ = ["Poller"]

log = logging.get(__name__)

INTERVAL_SECONDS = 1.0
"""Between two polls that found little, while doorbells ring."""

OVERDUE_SECONDS = 2.0
"""How long an event is left to its doorbell: maintenance rings within a second for those whose time has come."""

LOST_INTERVAL_SECONDS = 0.25
"""Between two polls that found little, while no doorbell can ring: the longest that an event then waits."""

BUSY_SECONDS = 0.05
"""With no doorbells and half of the slots taken for long, the others are filled after this time."""

BACKOFF_SECONDS = (0.5, 5.0)
"""First and longest wait while PostgreSQL is away."""

STALE_SECONDS = 60.0
"""A poll takes milliseconds; one that meets a dead network may wait for a connection and a statement, 35 s at most."""


class Poller:
    """Claims due events for free slots, and has the crew run them.

    While the broker answers it looks about once a second for events that nobody rang for, so it neither races doorbells nor
    costs them time. When the broker is silent it takes whatever is due, and goes on while there is more.

    Args:
        is_suspect: choose events that have crashed a worker, or those that have not.
        is_broker_answering: asked often; must not wait.
        is_any_due: whether a claim of events that have been due for so many seconds may find one: a look, cheaper than a
            claim. Not asked while polls find events.
        urgent_priority: of events for which threads are reserved, and above.
        next_wake: when some event may run that waits for that moment, in seconds of the monotonic clock.
    """

    def __init__(
        self,
        executor: Runs,
        crew: Crew,
        *,
        is_suspect: bool,
        is_broker_answering: Callable[[], bool],
        is_any_due: Callable[[float], bool],
        next_wake: Callable[[], float | None] = lambda: None,
        urgent_priority: int = 0,
    ) -> None:
        self._executor = executor
        self._crew = crew
        self._slots = crew.slots
        self._is_suspect = is_suspect
        self._is_broker_answering = is_broker_answering
        self._is_any_due = is_any_due
        self._next_wake = next_wake
        self._urgent_priority = urgent_priority
        self._has_found = True
        self._wake = threading.Event()
        self._is_stopping = False
        self._outages = 0
        self._polled_at = time.monotonic()
        self._polling = threading.Thread(target=self._poll, name="poller", daemon=True)

    def start(self) -> None:
        """Poll for the first time at once."""
        self._polling.start()

    def nudge(self) -> None:
        """Poll now."""
        self._wake.set()

    def is_alive(self) -> bool:
        """Whether its thread runs and the last poll is recent. A PostgreSQL that is away does not matter."""
        return self._polling.is_alive() and self.seconds_since_poll() < STALE_SECONDS

    def seconds_since_poll(self) -> float:
        """How long ago the last poll began."""
        return time.monotonic() - self._polled_at

    def stop_claiming(self) -> None:
        """Claim nothing more; what is claimed goes on."""
        self._is_stopping = True
        self.nudge()

    def _poll(self) -> None:
        while not self._is_stopping:
            self._polled_at = time.monotonic()
            try:
                self._crew.give_back_overdue()
                self._look_for_urgent()
                is_more = self._turn()
            except DatabaseUnavailable as exc:
                self._away(Log.DATABASE_UNAVAILABLE, reason=str(exc))
            except Exception as exc:  # noqa: BLE001 (without its poller a process would live on as half of itself)
                self._away(Log.POLL_FAILED, exc_info=exc)
            else:
                self._outages = 0
                self._rest(is_more=is_more)

    def _turn(self) -> bool:
        """Claim for the free slots and hand over; whether there may be more."""
        if self._slots.is_paused:
            return False
        overdue_seconds = OVERDUE_SECONDS if self._is_broker_answering() else 0.0
        if not (self._has_found or self._is_any_due(overdue_seconds)):
            return False
        free = self._slots.take_free()
        if not free:
            return True
        found = self._claim(free, overdue_seconds=overdue_seconds)
        self._has_found = bool(found)
        return found == free

    def _look_for_urgent(self) -> None:
        """Fill threads that are kept for urgent events; their doorbells may ring where nobody has a thread to spare."""
        if free := self._slots.take_for_urgent():
            self._claim(free, overdue_seconds=0.0, least_priority=self._urgent_priority)

    def _claim(self, free: int, *, overdue_seconds: float, least_priority: int = 0) -> int:
        """Claim for so many slots that were taken, and hand over; returns how many."""
        leases: list[Lease] = []
        try:
            leases = self._executor.claim_due(
                free, is_suspect=self._is_suspect, overdue_seconds=overdue_seconds, least_priority=least_priority
            )
        finally:
            self._slots.give_back(free - len(leases))
        self._crew.add([(lease, self._give_back_one) for lease in leases])
        Metrics.polled.inc(len(leases))
        return len(leases)

    def _rest(self, *, is_more: bool) -> None:
        is_answering = self._is_broker_answering()
        if is_more:
            self._slots.wait_for_half(INTERVAL_SECONDS if is_answering else BUSY_SECONDS)
        else:
            self._wait(INTERVAL_SECONDS if is_answering else LOST_INTERVAL_SECONDS)

    def _away(self, event: str, **fields: object) -> None:
        """Say it once for each outage, and wait longer each time."""
        (log.debug if self._outages else log.warning)(event, **fields)
        first, longest = BACKOFF_SECONDS
        self._wait(min(longest, first * 2 ** min(self._outages, 10)))
        self._outages += 1

    def _wait(self, seconds: float) -> None:
        seconds *= random.uniform(0.8, 1.2)  # noqa: S311 (jitter)
        if (at := self._next_wake()) is not None:
            seconds = min(seconds, max(0.0, at - time.monotonic()))
        self._wake.wait(seconds)
        self._wake.clear()

    def _give_back_one(self) -> None:
        self._slots.give_back(1)
