"""Ending handlers whose events an operator has cancelled."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from holdfast.processor.attempt.heartbeat import INSIST_SECONDS, Heartbeat, Running
from holdfast.processor.attempt.interruption import Cancelled, Interruptions
from holdfast.processor.attempt.releasing import UNDECIDED
from holdfast.runtime.background import Repeater

__all__ = ["GRACE_SECONDS", "LOOK_SECONDS", "Cancels"]

LOOK_SECONDS = 0.4
"""Between two looks for requests, while a handler runs that has run for this long. A request is to be heard of within half a
second, and handlers that are quicker are not asked about at all.
"""

GRACE_SECONDS = INSIST_SECONDS
"""A handler without a transaction may be in the middle of a call to somebody else: it sees ``ctx.cancelled`` and has this
long to end by itself. A transactional one is interrupted at once, since all that it did is rolled back.
"""

AGAIN_SECONDS = 1.0
"""Between two interruptions of a transactional handler that goes on: it may have caught the first one."""

STATEMENT_SECONDS = 0.1
"""For a handler to end by itself when its statement was cancelled. An exception from another thread within a call of
SQLAlchemy would cost the connection, and with it the transaction of a batch.
"""

UNREACHABLE_SECONDS = 1.0
"""After the first interruption: a handler that still runs is in a call that nothing reaches, or goes on all the same. Its
event is then ended without it."""


@dataclass(slots=True, eq=False)
class _Ending:
    """A handler that is to end. Moments are of the monotonic clock."""

    running: Running
    noticed_at: float
    pressed_at: float | None = None
    first_pressed_at: float | None = None
    is_given_up: bool = False


class Cancels:
    """Looks whether events that run here are to be cancelled, and ends their handlers.

    A transactional handler is interrupted, and PostgreSQL cancels its statement; another one is told, and interrupted after
    ``grace_seconds``. The handler's thread ends the event. Where it does not come back, ``end_without`` does.

    Args:
        find: which of these events are to be cancelled, and who asked for it.
        end_without: ends the event of a handler that nothing reaches: cuts its connection off, and moves the event.
    """

    def __init__(
        self,
        find: Callable[[Sequence[UUID]], dict[UUID, str]],
        heartbeat: Heartbeat,
        interruptions: Interruptions,
        *,
        end_without: Callable[[Running], object],
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._find = find
        self._heartbeat = heartbeat
        self._interruptions = interruptions
        self._end_without = end_without
        self._grace_seconds = grace_seconds
        self._endings: dict[Running, _Ending] = {}
        self._repeater = Repeater(
            "cancels", self.look, interval_seconds=LOOK_SECONDS, is_needed=lambda: bool(heartbeat.running())
        )
        heartbeat.on_begin = self._repeater.wake

    def start(self) -> None:
        """Begin to look."""
        self._repeater.start()

    def stop(self) -> None:
        """No handler runs any more, or its process has no time left."""
        self._repeater.stop(timeout_seconds=1)

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._repeater.is_alive

    def look(self) -> None:
        """Ask about the events whose handlers have run for a while, and see to those that are to end."""
        now = time.monotonic()
        running = self._heartbeat.running()
        asked = [each for each in running if each.cancelled_by is None and now - each.started >= LOOK_SECONDS]
        if asked:
            with suppress(*UNDECIDED):
                self._note(asked, self._find([lease.event.id for each in asked for lease in each.leases]))
        self._press_all([each for each in running if each.cancelled_by is not None])

    def _note(self, asked: Sequence[Running], found: dict[UUID, str]) -> None:
        for running in asked if found else ():
            for lease in running.leases:
                if lease.event.id in found:
                    self._heartbeat.note_cancelled(running, lease.event.id, found[lease.event.id])

    def _press_all(self, cancelled: Sequence[Running]) -> None:
        now = time.monotonic()
        self._endings = {each: self._endings.get(each) or _Ending(each, now) for each in cancelled}
        for ending in self._endings.values():
            self._press(ending, now)

    def _press(self, ending: _Ending, now: float) -> None:
        running = ending.running
        is_transactional = running.handler.is_transactional
        if not is_transactional and now - ending.noticed_at < self._grace_seconds:
            return
        is_unreached = ending.first_pressed_at is not None and now - ending.first_pressed_at >= UNREACHABLE_SECONDS
        if is_unreached and not ending.is_given_up:
            # In a thread of its own: the row's lock goes when the server notices that the connection has.
            ending.is_given_up = True
            threading.Thread(target=self._end_without, args=[running], name="end-without", daemon=True).start()
        again_seconds = AGAIN_SECONDS if is_transactional else self._grace_seconds
        if ending.pressed_at is not None and now - ending.pressed_at < again_seconds:
            return
        if running.backend is not None:
            # In a thread of its own: a server that does not answer must not hold up the others.
            threading.Thread(target=self._cut_short, args=[running], name="cancel", daemon=True).start()
        elif not running.interrupt(self._interruptions, Cancelled):
            return  # it is just opening its session
        ending.pressed_at = now
        ending.first_pressed_at = ending.first_pressed_at or now

    def _cut_short(self, running: Running) -> None:
        """What the handler makes of the end of its statement does not matter: the event is cancelled."""
        if not running.cancel_statement(patience_seconds=STATEMENT_SECONDS):
            running.interrupt(self._interruptions, Cancelled)
