"""The server: one loop reads requests whole, Flask answers them in threads. One process; scale by replicas."""

import asyncio
import signal
import sys
from collections import deque
from functools import partial
from socket import socket
from typing import Any

from holdfast.ingest.edge.answering import Answering, App
from holdfast.ingest.edge.connection import Connection, House
from holdfast.ingest.edge.crowd import Crowd
from holdfast.ingest.edge.reading import Limits
from holdfast.ingest.edge.threads import Threads
from holdfast.runtime import logging
from holdfast.runtime.listening import BACKLOG, connection_limit, open_listener
from holdfast.runtime.settings import IngestSettings
from holdfast.runtime.telemetry import Log

__all__ = ["Edge", "serve"]

log = logging.get(__name__)

MAX_CONNECTIONS = 4096
"""Beyond it the one that has waited longest is dropped. Each costs about 20 kB."""

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Of all requests in memory, or eight of the longest events where that is more."""

RECEIVE_BYTES = 32 * 1024
"""Read from a connection in one turn."""

GRACEFUL_SECONDS = 25

LOOK_SECONDS = 0.25
"""Between two looks at the connections' deadlines, while there are any."""

SWITCH_SECONDS = 0.0005
"""How long a thread that computes keeps the interpreter from the loop. With Python's five milliseconds the loop, which every
request passes twice, waits most of its time."""

ACCEPTED_AT_ONCE = 32
"""Connections accepted before the limit can act; less than the descriptors that are reserved."""


class Edge:
    """Serves one application."""

    def __init__(self, app: App, settings: IngestSettings, threads: Threads) -> None:
        self._answering = Answering(app, threads)
        self._crowd: Crowd[Connection] = Crowd(
            most_connections=connection_limit(MAX_CONNECTIONS),
            most_bytes=max(MAX_BODY_BYTES, 8 * max(settings.max_event_bytes, settings.max_batch_bytes)),
        )
        self._settings = settings
        self._is_told = logging.Rarely(seconds=60)

    async def run(self, listener: socket) -> None:
        """Serve until SIGTERM or SIGINT; then let what has begun end, for 25 s at most, or until the next signal."""
        self._loop = loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_loop_error)
        stops = deque([asyncio.Event(), asyncio.Event()])
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _next_of, stops)
        first, second = stops
        house = self._house(loop)
        server = await loop.create_server(partial(Connection, house), sock=listener, backlog=ACCEPTED_AT_ONCE)
        listener.listen(BACKLOG)  # asyncio's backlog is also how many it accepts in one turn
        looking = loop.create_task(self._look())
        await first.wait()
        server.close()
        house.is_stopping = True
        for connection in self._crowd.everybody():
            connection.retire()
        enough = [loop.create_task(event.wait()) for event in (self._crowd.deserted, second)]
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
            await self._crowd.inhabited.wait()
            now = self._loop.time()
            for connection in self._crowd.everybody():
                connection.look(now)
            await asyncio.sleep(LOOK_SECONDS)

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), OSError):
            loop.default_exception_handler(context)
        elif self._is_told.is_due():  # asyncio accepts again after a second, by itself
            log.error(Log.ACCEPT_FAILED, reason=type(context["exception"]).__name__)


def serve(app: App, settings: IngestSettings, threads: Threads) -> None:
    """Serve until SIGTERM; then let what has begun end, for 25 s at most.

    Raises:
        OSError: the port is taken.
        ConfigurationError: the host is no address.
    """
    listener = open_listener(settings.ingest_host, settings.ingest_port)
    sys.setswitchinterval(SWITCH_SECONDS)
    asyncio.run(Edge(app, settings, threads).run(listener))


def _next_of(stops: "deque[asyncio.Event]") -> None:
    if stops:
        stops.popleft().set()
