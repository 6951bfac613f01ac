"""Watching over handlers that run: leases kept alive, and an end to those whose time is up."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

from holdfast.domain.errors import DatabaseUnavailable
from holdfast.domain.event import Lease
from holdfast.processor.attempt.interruption import Cancelled, Interruptions, TimedOut
from holdfast.processor.attempt.turn import fields_of
from holdfast.processor.handlers.registry import Handler
from holdfast.runtime import logging
from holdfast.runtime.background import Batcher, Repeater
from holdfast.runtime.telemetry import Log, Metrics
from holdfast.storage.backend import Backend

__all__ = ["CHECK_SECONDS", "INSIST_SECONDS", "Heartbeat", "Running"]

log = logging.get(__name__)

Line = Callable[[], object]
"""Writes it."""

CHECK_SECONDS = 0.2
"""Between two looks at the clock: a timeout is enforced this much late at most."""

LINES_SECONDS = 0.05
"""Until a handler that was told to stop is in the log."""

INSIST_SECONDS = 5.0
"""A handler told that it is cancelled has this long to end by itself; then, and again after each such while, an exception is
raised in it."""

STUCK_SECONDS = 30.0
"""Beyond its timeout a handler that still runs hears nothing: it hangs in a call that no exception reaches."""


@dataclass(eq=False)
class Running:
    """One handler at work. ``cancelled`` is what ``ctx.cancelled`` shows."""

    lease: Lease
    handler: Handler
    others: Sequence[Lease] = ()
    """Of the events that a handler of lists was called for beside that one."""
    backend: Backend | None = None
    """The connection of a handler that has its session: its transaction has locked the event's row."""
    thread: int = field(default_factory=threading.get_ident)
    started: float = field(default_factory=time.monotonic)
    kept_at: float = field(default_factory=time.monotonic)
    """When the lease was last seen to be held."""
    told_at: float | None = None
    is_given_up: bool = False
    is_lost: bool = False
    """Whether the event was given to another worker, as far as is known."""
    stop: Callable[[], object] | None = None
    """Cancels a handler that is a coroutine; ``None`` for one that has a thread to itself."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    cancelled_by: str | None = None
    """Who has cancelled the event, or one of them; ``None``: nobody. What the handler does from then on does not count."""
    _leaving: threading.Lock = field(default_factory=threading.Lock)
    _left: threading.Event = field(default_factory=threading.Event)

    def hold(self, backend: Backend) -> None:
        """From now on a transaction on this connection keeps the event."""
        self.backend = backend

    @property
    def leases(self) -> list[Lease]:
        """Of all events that the handler was called for."""
        return [self.lease, *self.others]

    def check(self) -> None:
        """For the handler's thread, before and after the handler.

        Raises:
            Cancelled: an operator has cancelled the event.
        """
        if self.cancelled_by is not None:
            raise Cancelled

    def leave(self) -> None:
        """The handler has ended. From now on nobody interrupts what its thread and its connection do; waits for who does."""
        with self._leaving:
            self._left.set()

    def interrupt(self, interruptions: Interruptions, error: type[BaseException]) -> bool:
        """Raise an exception in the handler, unless it has ended; whether it was within the handler. Stops a coroutine."""
        if self.stop is not None:
            self.stop()
            return True
        with self._leaving:
            return not self._left.is_set() and interruptions.interrupt_one(self.thread, error)

    def cancel_statement(self, *, patience_seconds: float) -> bool:
        """Let PostgreSQL cancel the handler's statement; whether the handler has ended within that time after it.

        May wait for the server.
        """
        with self._leaving:
            if self.backend is not None and not self._left.is_set():
                self.backend.cancel()
        return self._left.wait(patience_seconds)

    def is_over_time(self, now: float) -> bool:
        """Whether the handler's timeout has passed."""
        return now - self.started >= self.handler.timeout_seconds

    def is_adrift(self, now: float) -> bool:
        """Whether the lease may have expired: another worker may have the event by now."""
        return self.backend is None and now - self.kept_at >= self.lease.seconds


class Heartbeat:
    """Knows every handler that runs in this process.

    The row of a handler that has its session is locked, so its lease needs no care. Another handler's lease is extended every
    third of it; when that fails for a whole lease, however it fails, the handler is told to stop. A transactional handler
    whose time is up is ended by an exception (nowhere else than within it: see ``interruption``); another one is told first.
    A coroutine is cancelled, which reaches it where it awaits something.

    Args:
        extend: see ``storage.leases.extend``; in a transaction of its own.
        insist_seconds, stuck_seconds: see ``INSIST_SECONDS`` and ``STUCK_SECONDS``.
        on_stuck: called once for a handler that nothing ends; the process is then of no more use.
    """

    def __init__(
        self,
        extend: Callable[[list[Lease]], dict[UUID, bool]],
        interruptions: Interruptions,
        *,
        lease_seconds: float,
        on_stuck: Callable[[], None] = lambda: None,
        insist_seconds: float = INSIST_SECONDS,
        stuck_seconds: float = STUCK_SECONDS,
    ) -> None:
        self._insist_seconds = insist_seconds
        self._stuck_seconds = stuck_seconds
        self._extend = extend
        self._interruptions = interruptions
        self._on_stuck = on_stuck
        self._lock = threading.Lock()
        self._running: set[Running] = set()
        self.on_begin: Callable[[], object] = lambda: None
        """Called when a handler begins."""
        self.cancelled_by: dict[UUID, str] = {}
        """Who has cancelled events that run here, or ran in a list and are now to run alone."""
        self._beat = Repeater("heartbeat", self.beat, interval_seconds=lease_seconds / 3)
        # In a thread of its own: a heartbeat that hangs is one of the things it has to notice.
        self._check = Repeater(
            "timeouts", self.check, interval_seconds=CHECK_SECONDS, is_needed=lambda: bool(self._running)
        )
        # So have the lines about handlers: when nobody reads the log, times are up all the same.
        self._lines = Batcher("lines", _write, interval_seconds=LINES_SECONDS)

    def start(self) -> None:
        """Begin to watch."""
        for each in (self._beat, self._check, self._lines):
            each.start()

    def stop(self) -> None:
        """No handler runs any more, or its process has no time left."""
        self._beat.stop(timeout_seconds=1)
        self._check.stop(timeout_seconds=1)
        self._lines.stop()

    @property
    def is_alive(self) -> bool:
        """Whether its threads run."""
        return self._beat.is_alive and self._check.is_alive

    @contextmanager
    def watched(self, lease: Lease, handler: Handler, others: Sequence[Lease] = ()) -> Iterator[Running]:
        """The block is one handler's run in this thread, for one event or a list."""
        running = Running(lease, handler, others)
        self.add(running)
        try:
            yield running
        finally:
            self.discard(running)

    def add(self, running: Running) -> None:
        """From now on look after this handler, which may begin later: until then it ``started`` at infinity."""
        with self._lock:
            self._running.add(running)
            if self.cancelled_by:
                running.cancelled_by = self.cancelled_by.get(running.lease.event.id)
        self._check.wake()
        self.on_begin()

    def discard(self, running: Running) -> None:
        """It has ended."""
        with self._lock:
            self._running.discard(running)
            if not running.others and self.cancelled_by:
                self.cancelled_by.pop(running.lease.event.id, None)

    def note_cancelled(self, running: Running, event_id: UUID, by: str) -> None:
        """An operator has cancelled the event, which this handler runs for: what it does from now on does not count."""
        with self._lock:
            if running not in self._running:
                return
            self.cancelled_by[event_id] = by
            running.cancelled_by = by
        self.tell(running, "an operator cancelled the event")

    def cancel_all(self) -> None:
        """Tell every handler to stop."""
        for running in self.running():
            running.cancelled.set()

    def stop_coroutines(self) -> None:
        """Cancel every handler that is a coroutine."""
        for running in self.running():
            if running.stop is not None:
                running.stop()

    def cancel_statements(self) -> None:
        """Let PostgreSQL cancel what transactional handlers wait for, since no exception reaches them meanwhile."""
        for running in self.running():
            if running.backend is not None:
                # In a thread each: a server that does not answer must not hold up the others.
                threading.Thread(target=running.backend.cancel, name="cancel", daemon=True).start()

    def running(self) -> list[Running]:
        """Every handler that is at work now."""
        with self._lock:
            return list(self._running)

    def beat(self) -> None:
        """Extend the leases of handlers whose events no transaction keeps."""
        now = time.monotonic()
        kept = [running for running in self.running() if running.backend is None]
        if not kept:
            return
        try:
            held = self._extend([running.lease for running in kept])
        except DatabaseUnavailable as exc:
            log.warning(Log.DATABASE_UNAVAILABLE, reason=str(exc))
            return
        for running in kept:
            if held.get(running.lease.event.id):
                running.kept_at = now  # the time before the call: the lease lasts at least from then
            elif running.lease.event.id not in held and running.backend is None:
                running.is_lost = True
                self.tell(running, "the lease was lost")
                if running.stop is not None:
                    running.stop()

    def check(self) -> None:
        """End what has run for too long."""
        now = time.monotonic()
        for running in self.running():
            if running.is_over_time(now):
                self._end(running, now)
            elif running.is_adrift(now):
                self.tell(running, "the lease could not be extended")

    def _end(self, running: Running, now: float) -> None:
        is_first = not running.cancelled.is_set()
        self.tell(running, "its time was up")
        if is_first and not running.handler.is_transactional and running.stop is None:
            running.told_at = now  # it may be in the middle of a call to somebody else: it is asked first
        elif running.told_at is None or now - running.told_at >= self._insist_seconds:
            running.told_at = now
            running.interrupt(self._interruptions, TimedOut)
        if now - running.started >= running.handler.timeout_seconds + self._stuck_seconds and not running.is_given_up:
            running.is_given_up = True
            self._on_stuck()
            self._lines.add(partial(log.error, Log.HANDLER_STUCK, **fields_of(running.lease, running.handler)))

    def tell(self, running: Running, reason: str) -> None:
        """Let ``ctx.cancelled`` be true."""
        if not running.cancelled.is_set():
            running.cancelled.set()
            Metrics.cancelled.inc()
            fields = fields_of(running.lease, running.handler)
            self._lines.add(partial(log.warning, Log.CANCELLED, reason=reason, **fields))


def _write(lines: list[Line]) -> None:
    for write in lines:
        write()
