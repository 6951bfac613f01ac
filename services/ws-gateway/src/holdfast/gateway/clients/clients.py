"""Every open connection of this process, whatever it speaks: told together, let go together."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

from holdfast.gateway.clients.connection import Connection
from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.frames import Reconnect, Status
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
    """Runs each connection's writer, knows them all, and lets them go in good order."""

    def __init__(self) -> None:
        self._writers: dict[Connection, asyncio.Task[None]] = {}
        self.is_draining = False
        """From now on clients belong elsewhere."""

    @contextlib.asynccontextmanager
    async def writing(self, connection: Connection) -> AsyncIterator[None]:
        """Count the connection in, and write what it queues until it is closed and the last frame has left."""
        writer = asyncio.create_task(connection.run(), name="live writer")
        self._writers[connection] = writer
        Metrics.connections.inc()
        if self.is_draining:
            # Let in before the drain began, it came too late to be among those that are let go by that.
            _announce_end(connection)
            _end(connection)
        try:
            yield
        finally:
            if connection.close_code is None:
                writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer
            del self._writers[connection]
            Metrics.connections.dec()
            Metrics.closed.labels(code=str(int(connection.close_code or 0) or "client")).inc()

    def announce(self, state: State) -> None:
        """Tell every client that updates are late, or that all have been caught up with."""
        for connection in self._writers:
            connection.send(Status(state=state))

    async def drain(self) -> None:
        """Send everybody elsewhere: announce it, then close in batches, then wait for the last frames to leave."""
        self.is_draining = True
        connections = list(self._writers)
        seconds = min(DRAIN_SECONDS, len(connections) * DRAIN_SECONDS_PER_CONNECTION)
        for connection in connections:
            _announce_end(connection)
        size = max(1, -(-len(connections) // DRAIN_BATCHES))
        batches = [connections[start : start + size] for start in range(0, len(connections), size)]
        for batch in batches:
            for connection in batch:
                _end(connection)
            await asyncio.sleep(seconds / len(batches))
        if self._writers:
            await asyncio.wait(list(self._writers.values()), timeout=PARTING_SECONDS)


def _announce_end(connection: Connection) -> None:
    connection.send(Reconnect(after_ms=random.randint(0, RECONNECT_JITTER_MS)))  # noqa: S311 (jitter)


def _end(connection: Connection) -> None:
    connection.close(CloseCode.DRAIN, "this gateway shuts down; connect again")
