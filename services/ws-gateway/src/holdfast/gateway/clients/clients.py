"""Every open connection of this process, whatever it speaks: told together, let go together."""

import asyncio
import contextlib
import random

from holdfast.gateway.clients.connection import Connection, Outlet, Turn
from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Frame
from holdfast.gateway.protocol.frames import Limits, Reconnect, Status
from holdfast.gateway.topics.hub import State
from holdfast.runtime.telemetry import Metrics

__all__ = ["Clients"]

DRAIN_SECONDS = 5.0
"""Closes are spread over this long at most: the other gateways take over a herd in pieces."""
DRAIN_SECONDS_PER_CONNECTION = 0.002
DRAIN_BATCHES = 50
RECONNECT_JITTER_MS = 1000
PARTING_SECONDS = 6.0
"""For the last frames; above ``connection.PARTING_SECONDS``, after which a client that does not read is cut off."""


class Clients:
    """Knows every connection from :meth:`enter` until its last frame has left, and lets them go in good order."""

    def __init__(self) -> None:
        self._connections: set[Connection] = set()
        self._turn = Turn()
        self._is_empty = asyncio.Event()
        self.is_draining = False
        """From now on clients belong elsewhere."""

    def connection(self, outlet: Outlet, limits: Limits) -> Connection:
        """A new one, which begins to write when it is entered."""
        return Connection(outlet, limits, self._turn, on_parted=self.leave)

    def enter(self, connection: Connection) -> None:
        """Count it in, and let it write."""
        self._connections.add(connection)
        Metrics.connections.inc()
        if self.is_draining:
            # Let in before the drain began, it came too late to be among those that are let go by that.
            _announce_end(connection)
            _end(connection)
        connection.flush()

    def leave(self, connection: Connection) -> None:
        """Count it out: its last frame has left, or its client has."""
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        Metrics.connections.dec()
        Metrics.closed.labels(code=str(int(connection.close_code or 0) or "client")).inc()
        if not self._connections:
            self._is_empty.set()

    def announce(self, state: State) -> None:
        """Tell every client that updates are late, or that all have been caught up with."""
        frame = Frame.of(Status(state=state))
        for connection in self._connections:
            connection.enqueue(frame)

    async def drain(self) -> None:
        """Send everybody elsewhere: announce it, then close in batches, then wait for the last frames to leave."""
        self.is_draining = True
        connections = list(self._connections)
        seconds = min(DRAIN_SECONDS, len(connections) * DRAIN_SECONDS_PER_CONNECTION)
        for connection in connections:
            _announce_end(connection)
        size = max(1, -(-len(connections) // DRAIN_BATCHES))
        batches = [connections[start : start + size] for start in range(0, len(connections), size)]
        for batch in batches:
            for connection in batch:
                _end(connection)
            await asyncio.sleep(seconds / len(batches))
        await self._emptied()

    async def _emptied(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PARTING_SECONDS):
                while self._connections:
                    self._is_empty.clear()
                    await self._is_empty.wait()


def _announce_end(connection: Connection) -> None:
    connection.send(Reconnect(after_ms=random.randint(0, RECONNECT_JITTER_MS)))  # noqa: S311 (jitter)


def _end(connection: Connection) -> None:
    connection.close(CloseCode.DRAIN, "this gateway shuts down; connect again")
