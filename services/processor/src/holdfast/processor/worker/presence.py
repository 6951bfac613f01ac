"""What a worker process says of itself in PostgreSQL, and what it hears of its node there: whether it is drained."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable

from holdfast.domain.errors import DatabaseUnavailable, StatementTooSlow, TransactionConflict
from holdfast.processor import VERSION
from holdfast.processor.attempt.heartbeat import Running
from holdfast.processor.handlers.registry import Handlers
from holdfast.processor.worker.board import Board
from holdfast.processor.worker.crew import Crew
from holdfast.processor.worker.roles import Role
from holdfast.runtime import logging
from holdfast.runtime.settings import ProcessorSettings
from holdfast.runtime.telemetry import Log
from holdfast.storage import nodes
from holdfast.storage.database import Database
from holdfast.storage.nodes import Beat, Identity

__all__ = ["BEAT_SECONDS", "Presence", "async_places", "identity"]

log = logging.get(__name__)

BEAT_SECONDS = 10.0
"""Between two beats of a worker of which nothing changes; what has changed is told at the next turn."""

LEAVE_SECONDS = 1.0
"""For saying goodbye: a worker that ends waits no longer for a server that does not answer. It is forgotten all the same."""

_NEXT_TIME = (DatabaseUnavailable, StatementTooSlow, TransactionConflict)
"""No reason for a log line: the poller says so, and the next turn says all of it again."""


class Presence:
    """One worker process, as others see it. It has no thread: its turns are those of recovery, every two seconds.

    Drained, the process takes nothing new and finishes what it has. The node's row says so, and the board remembers it for
    workers that replace others, and for a row that was forgotten while the node was frozen.

    Args:
        running: what handlers are at work on.
        seconds_since_poll: how long ago the process looked for due events.
    """

    def __init__(
        self,
        database: Database,
        who: Identity,
        *,
        board: Board,
        crew: Crew,
        running: Callable[[], Iterable[Running]],
        is_broker_answering: Callable[[], bool],
        seconds_since_poll: Callable[[], float],
    ) -> None:
        self._database = database
        self._who = who
        self._board = board
        self._crew = crew
        self._slots = crew.slots
        self._running = running
        self._is_broker_answering = is_broker_answering
        self._seconds_since_poll = seconds_since_poll
        self._told: Beat | None = None
        self._told_at = 0.0

    def begin(self) -> None:
        """Write the process down, and hear whether its node is drained: before it takes anything."""
        if self._board.is_drained:
            self._obey(is_drained=True)
        with contextlib.suppress(*_NEXT_TIME):
            self._enter()

    def turn(self, is_drained: bool | None) -> None:
        """Do as the node's row says, and tell what has changed. ``None``: the row is not there.

        Raises:
            DatabaseUnavailable, StatementTooSlow, TransactionConflict: the next turn tells it.
        """
        if is_drained is None:
            self._enter()
        elif is_drained != self._slots.is_paused:
            self._obey(is_drained=is_drained)
        beat, now = self._beat(), time.monotonic()
        if beat == self._told and now - self._told_at < BEAT_SECONDS:
            return
        if not nodes.beat(self._database, self._who, beat, polled_seconds=self._seconds_since_poll()):
            self._enter()
            nodes.beat(self._database, self._who, beat, polled_seconds=self._seconds_since_poll())
        self._told, self._told_at = beat, now

    def end(self) -> None:
        """Say goodbye."""
        leaving = threading.Thread(target=self._leave, name="leave", daemon=True)
        leaving.start()
        leaving.join(LEAVE_SECONDS)

    def _enter(self) -> None:
        self._told = None
        is_drained = self._database.call(nodes.enter, self._who, is_drained=self._board.is_drained)
        if is_drained != self._slots.is_paused:
            self._obey(is_drained=is_drained)

    def _obey(self, *, is_drained: bool) -> None:
        self._board.note_drained(is_drained=is_drained)
        if is_drained:
            self._slots.pause()
            log.warning(Log.DRAINED, worker=self._who.worker, node=self._who.node_id)
        elif self._slots.is_paused:
            self._slots.resume()
            log.info(Log.UNDRAINED, worker=self._who.worker, node=self._who.node_id)

    def _beat(self) -> Beat:
        runs = sorted(self._running(), key=lambda run: run.started)[: nodes.MOST_RUNNING]
        return Beat(
            busy=self._crew.busy, is_draining=self._slots.is_paused, is_broker_away=not self._is_broker_answering(),
            running=tuple(map(_told_of, runs)),
        )  # fmt: skip

    def _leave(self) -> None:
        with contextlib.suppress(*_NEXT_TIME):
            self._database.call(nodes.leave, self._who)


def identity(settings: ProcessorSettings, role: Role, handlers: Handlers, board: Board) -> Identity:
    """Who this process is, and what it serves."""
    return Identity(
        board.node_id, "processor", settings.node_name, board.first_pid, VERSION, role.name, os.getpid(),
        slots=role.threads + async_places(settings, role, handlers), is_suspect=role.is_suspect,
        types=tuple(pattern for each in handlers for pattern in each.patterns),
        handlers=tuple(each.flow.declared(each.name) for each in handlers),
    )  # fmt: skip


def async_places(settings: ProcessorSettings, role: Role, handlers: Handlers) -> int:
    """How many events of ``async def`` handlers a process has at once beside its threads. Suspects have no neighbours."""
    return settings.async_concurrency if not role.is_suspect and any(each.is_async for each in handlers) else 0


def _told_of(run: Running) -> nodes.Running:
    lease = run.lease
    return nodes.Running(
        str(lease.event.id), lease.event.tenant, run.handler.name, lease.attempt, lease.claimed_at.isoformat()
    )
