"""The server of one process: a loop reads requests whole, Flask answers them in threads."""

import asyncio
from functools import partial
from socket import socket

from holdfast.ingest.edge.accepting import Accepting, Neighbours
from holdfast.ingest.edge.answering import Answering, App
from holdfast.ingest.edge.connection import Connection, House
from holdfast.ingest.edge.crowd import Crowd
from holdfast.ingest.edge.reading import Limits
from holdfast.ingest.edge.threads import Threads
from holdfast.runtime.listening import connection_limit
from holdfast.runtime.settings import IngestSettings

__all__ = ["GRACEFUL_SECONDS", "Edge"]

MAX_CONNECTIONS = 4096
"""Of the service. Beyond it the one that has waited longest is dropped. Each costs about 20 kB."""

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Of all requests in memory, or eight of the longest ones where that is more."""

RECEIVE_BYTES = 32 * 1024
"""Read from a connection in one turn."""

GRACEFUL_SECONDS = 25

LOOK_SECONDS = 0.25
"""Between two looks at the connections' deadlines, while there are any."""


class Edge:
    """Serves one application in one process, which has its share of the service's connections and bodies in memory.

    Args:
        processes: how many serve.
        neighbours: the others; ``None`` where there is none.
    """

    def __init__(
        self,
        app: App,
        settings: IngestSettings,
        threads: Threads,
        *,
        processes: int = 1,
        neighbours: Neighbours | None = None,
    ) -> None:
        self._answering = Answering(app, threads)
        longest = max(settings.max_event_bytes, settings.max_batch_bytes)
        self._crowd: Crowd[Connection] = Crowd(
            most_connections=connection_limit(-(-MAX_CONNECTIONS // processes)),
            most_bytes=max(max(MAX_BODY_BYTES, 8 * longest) // processes, 2 * longest),
        )
        self._settings = settings
        self._neighbours = neighbours
        self._is_stopping = asyncio.Event()
        self._has_to_hurry = asyncio.Event()

    def stop(self) -> None:
        """Take no more connections, and let what has begun end."""
        self._is_stopping.set()

    def hurry(self) -> None:
        """Do not wait for that."""
        self._is_stopping.set()
        self._has_to_hurry.set()

    async def run(self, listener: socket) -> None:
        """Serve until told to stop; then let what has begun end, for 25 s at most, or until told to hurry."""
        self._loop = loop = asyncio.get_running_loop()
        house = self._house(loop)
        accepting = Accepting(listener, partial(Connection, house), lambda: len(self._crowd), self._neighbours)
        looking = loop.create_task(self._look())
        await self._is_stopping.wait()
        await accepting.stop()
        house.is_stopping = True
        for connection in self._crowd.everybody():
            connection.retire()
        enough = [loop.create_task(event.wait()) for event in (self._crowd.deserted, self._has_to_hurry)]
        await asyncio.wait(enough, timeout=GRACEFUL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        looking.cancel()

    def _house(self, loop: asyncio.AbstractEventLoop) -> House:
        settings = self._settings
        return House(
            crowd=self._crowd, serve=partial(self._answering.serve, loop), clock=loop.time,
            limits=Limits(settings.max_event_bytes, settings.max_batch_bytes),
            request_seconds=settings.ingest_request_seconds, buffer=memoryview(bytearray(RECEIVE_BYTES)),
        )  # fmt: skip

    async def _look(self) -> None:
        """Deadlines. Nobody connected, nothing to look at."""
        while True:
            if self._neighbours is not None and not self._is_stopping.is_set():
                self._neighbours.note(len(self._crowd))
            await self._crowd.inhabited.wait()
            now = self._loop.time()
            for connection in self._crowd.everybody():
                connection.look(now)
            await asyncio.sleep(LOOK_SECONDS)
