"""Taking connections from a listening socket that other processes may take from as well."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from socket import socket
from typing import Protocol

from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = ["Accepting", "Neighbours"]

log = logging.get(__name__)

AT_ONCE = 32
"""Connections accepted before the limit can act; less than the descriptors that are reserved."""

HOLD_BACK_SECONDS = 0.001
"""How long a connection is left to processes that have fewer. Then it is taken all the same: they may be busy."""

SHORT_SECONDS = 1.0
"""Before the next try, when descriptors or memory are short."""


class Neighbours(Protocol):
    """The other processes that accept from the same socket."""

    def should_take(self, connections: int) -> bool:
        """Whether one of them has fewer connections than these, by more than chance."""

    def note(self, connections: int) -> None:
        """So many this process has now."""


class Accepting:
    """Accepts in the loop; connections are spread by how many each process has.

    The kernel wakes every process for a connection, and the first one takes it. Connections stay for long and each is served
    by one process, so chance alone would leave one process with most of the work.

    Args:
        make: the protocol of a new connection.
        count: how many connections this process has.
        neighbours: ``None`` where no other process accepts.
    """

    def __init__(
        self,
        listener: socket,
        make: Callable[[], asyncio.BaseProtocol],
        count: Callable[[], int],
        neighbours: Neighbours | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._make = make
        self._count = count
        self._neighbours = neighbours
        self._arriving: set[asyncio.Task[object]] = set()
        self._pausing: asyncio.TimerHandle | None = None
        self._is_told = logging.Rarely(seconds=60)
        listener.setblocking(False)
        self._loop.add_reader(listener, self._accept)

    async def stop(self) -> None:
        """Take no more. Those that have been taken are there when this returns."""
        if self._pausing is not None:
            self._pausing.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        if self._arriving:
            await asyncio.wait(self._arriving)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            if self._neighbours is not None and self._neighbours.should_take(self._connections()):
                self._pause(HOLD_BACK_SECONDS)
                return
            if not self._take():
                return

    def _take(self) -> bool:
        """Whether there was one."""
        try:
            accepted, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):  # another process was quicker, or it left
            return False
        except OSError as exc:
            if self._is_told.is_due():
                log.error(Log.ACCEPT_FAILED, reason=type(exc).__name__)  # noqa: TRY400 (its name says it all)
            self._pause(SHORT_SECONDS)
            return False
        accepted.setblocking(False)
        task: asyncio.Task[object] = self._loop.create_task(self._receive(accepted))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)
        if self._neighbours is not None:
            self._neighbours.note(self._connections())
        return True

    async def _receive(self, accepted: socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make, accepted)
        except OSError:  # it has left already
            with suppress(OSError):
                accepted.close()

    def _connections(self) -> int:
        return self._count() + len(self._arriving)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._pausing = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._pausing = None
        self._loop.add_reader(self._listener, self._accept)
        self._take()
