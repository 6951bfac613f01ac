"""Backpressure: turn a tenant's events away while its backlog is too old, so that it does not grow without bound.

Each tenant has its own gate: tenants take turns, so the backlog of one is no reason to turn others away.

Hysteresis keeps the gate from flapping: it shuts when the oldest due event has waited for longer than the limit, and opens
again when that is down to half.
"""

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from holdfast.domain.errors import DatabaseUnavailable
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log, Metrics
from holdfast.storage.backlog import Backlog

__all__ = ["LOOK_SECONDS", "BacklogTooOld", "Backpressure", "Gates", "is_shut"]

log = logging.get(__name__)

CACHE_SECONDS = 1.0
"""How long a measurement serves every request of this process."""

LOOK_SECONDS = 5.0
"""Between two measurements when no request asks for one."""

MOST_GATES = 10_000
"""Tenants that one process remembers."""

RETRY_AFTER_SECONDS = (2, 10)
"""Drawn from this range, so that producers which were turned away together do not come back together."""


class BacklogTooOld(Exception):
    """Events are turned away. ``retry_after_seconds``: when to send the same event again."""

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__("events of this tenant wait for too long already; send the same event again after Retry-After")
        self.retry_after_seconds = retry_after_seconds


def is_shut(was_shut: bool, *, age_seconds: float, limit_seconds: float) -> bool:
    """Whether to turn events away, given whether they were until now. A limit of 0 never does."""
    if limit_seconds == 0:
        return False
    return age_seconds >= limit_seconds / 2 if was_shut else age_seconds > limit_seconds


class Gates:
    """A gate for each tenant.

    Args:
        measure: takes a tenant; see :class:`Backpressure`.
        limit_seconds: of tenants that have no limit of their own; 0 turns all gates off.
    """

    def __init__(
        self, measure: Callable[[str], Backlog], *, limit_seconds: float, cache_seconds: float = CACHE_SECONDS
    ) -> None:
        self._measure = measure
        self._limit_seconds = limit_seconds
        self._cache_seconds = cache_seconds
        self._gates: dict[str, Backpressure] = {}

    def check(self, tenant: str) -> None:
        """Let the caller pass.

        Raises:
            BacklogTooOld: with a jittered time to wait.
        """
        if not self._limit_seconds:
            return
        gate = self._gates.get(tenant)
        if gate is None:
            if len(self._gates) >= MOST_GATES:  # those that are shut shut again within a second
                self._gates.clear()
            gate = self._gates.setdefault(tenant, self._gate(tenant))
        gate.check()

    def look_again(self) -> None:
        """See :meth:`Backpressure.look_again`; and say whether any gate is shut."""
        gates = list(self._gates.values())
        for gate in gates:
            gate.look_again()
        Metrics.turning_away.set(any(gate.is_shut for gate in gates))

    def _gate(self, tenant: str) -> "Backpressure":
        return Backpressure(
            lambda: self._measure(tenant), limit_seconds=self._limit_seconds, cache_seconds=self._cache_seconds,
            tenant=tenant,
        )  # fmt: skip


class Backpressure:
    """A gate for new events. The age is measured by one request at a time; the others go by the last answer.

    Args:
        measure: the age of the oldest due event; may raise ``DatabaseUnavailable``, which changes nothing: recording will
            say so itself.
        limit_seconds: where the measurement has none; 0 turns the gate off.
        tenant: for the log.
    """

    def __init__(
        self, measure: Callable[[], Backlog], *, limit_seconds: float, cache_seconds: float = CACHE_SECONDS,
        tenant: str | None = None,
    ) -> None:  # fmt: skip
        self._measure = measure
        self._tenant = tenant
        self._limit_seconds = limit_seconds
        self._cache_seconds = cache_seconds
        self._is_shut = False
        self._fresh_until = 0.0
        self._measuring = threading.Lock()

    @property
    def is_shut(self) -> bool:
        """Whether events were turned away at the last look."""
        return self._is_shut

    def check(self) -> None:
        """Let the caller pass.

        Raises:
            BacklogTooOld: with a jittered time to wait.
        """
        if self._limit_seconds and self._has_to_measure():
            try:
                self._remeasure()
            finally:
                self._measuring.release()
        if self._is_shut:
            raise BacklogTooOld(random.randint(*RETRY_AFTER_SECONDS))  # noqa: S311 (jitter)

    def look_again(self) -> None:
        """Measure while events are turned away, though no request comes: producers may have gone to another process, and the
        gauge is to say the truth.
        """
        if self._is_shut:
            with suppress(BacklogTooOld):
                self.check()

    def _has_to_measure(self) -> bool:
        """Whether the value is stale and nobody else is at it; the lock is then held."""
        if time.monotonic() < self._fresh_until or not self._measuring.acquire(blocking=False):
            return False
        if time.monotonic() < self._fresh_until:  # another has just finished
            self._measuring.release()
            return False
        return True

    def _remeasure(self) -> None:
        try:
            age_seconds, own_limit = self._measure()
        except DatabaseUnavailable:
            return
        finally:
            self._fresh_until = time.monotonic() + self._cache_seconds
        was_shut, self._is_shut = self._is_shut, is_shut(
            self._is_shut, age_seconds=age_seconds,
            limit_seconds=self._limit_seconds if own_limit is None else own_limit,
        )  # fmt: skip
        if was_shut != self._is_shut:
            if self._is_shut:  # that none is any more only all gates together can say
                Metrics.turning_away.set(1)
            write = log.warning if self._is_shut else log.info
            write(
                Log.BACKLOG_TOO_OLD if self._is_shut else Log.BACKLOG_WORKED_OFF, oldest_due_seconds=round(age_seconds),
                tenant=self._tenant,
            )  # fmt: skip
