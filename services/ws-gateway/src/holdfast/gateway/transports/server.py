"""uvicorn, told to let clients go before it closes their sockets."""

import asyncio
import contextlib
import logging as standard_logging
import resource
import socket
from dataclasses import dataclass
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from holdfast.gateway.clients.clients import Clients
from holdfast.gateway.transports.http_protocol import HttpProtocol
from holdfast.gateway.transports.live_protocol import LiveProtocol
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = ["LiveServer", "Room", "config", "room"]

log = logging.get(__name__)

MAX_MESSAGE_BYTES = 64 * 1024
"""Longest frame that is taken off the wire at all. Above the protocol's own limit, whose refusal can say more."""

LONGEST_BACKLOG = 2048

MAX_HEAD_BYTES = 16 * 1024
"""Of a request's head; a longer one is refused. Tokens in a header are far shorter."""

TICK_SECONDS = 1.0

GRACEFUL_SECONDS = 3
"""For what is left after the drain: HTTP requests, and clients that did not answer their close frame."""


class LiveServer(uvicorn.Server):
    """uvicorn closes every WebSocket with 1012 the moment it is told to stop; here they are drained first."""

    def __init__(self, settings: uvicorn.Config, clients: Clients) -> None:
        super().__init__(settings)
        for name in ("uvicorn.error", "asyncio"):  # what they say of strangers' requests is bounded
            standard_logging.getLogger(name).addFilter(logging.RareLines(seconds=60))
        self._clients = clients
        self._told_to_exit = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self._told_to_exit.set)

    async def main_loop(self) -> None:
        """uvicorn's looks ten times a second whether it is to end. For its ``Date`` header once is enough; a signal wakes."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await self._told_to_exit.wait()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        log.info(Log.STARTED, host=host, port=port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        log.info(Log.STOPPING)
        for server in self.servers:
            server.close()
        await self._clients.drain()
        await super().shutdown(sockets)
        log.info(Log.STOPPED)


RESERVED_DESCRIPTORS = (32, 1024)
"""Kept for everything but clients (Redis, health, logs, and connections about to be turned away), the least and the most."""


@dataclass(frozen=True, slots=True)
class Room:
    """How many connections this process may have open, and how many wait to be accepted."""

    connections: int
    backlog: int


def room(wanted: int) -> Room:
    """Room for ``wanted`` connections, or for as many as the descriptors allow; raises their limit first as far as it may.

    Without descriptors left every accept would fail, and be tried and logged again and again, and nobody would be answered.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS says "infinity" and means less
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return Room(wanted, LONGEST_BACKLOG)
    least, most = RESERVED_DESCRIPTORS
    reserved = min(max(descriptors // 10, least), most, descriptors - 1)
    # One turn of the loop accepts at most the backlog; what is over the limit is closed in the next.
    return Room(max(1, min(wanted, descriptors - reserved)), max(1, min(reserved // 2, LONGEST_BACKLOG)))


def config(app: ASGIApp, *, host: str, port: int, most_connections: int = 0) -> uvicorn.Config:
    """The one way in which the gateway is served. ``most_connections``: 0 for as many as descriptors allow."""
    limits = room(most_connections or 1_000_000)
    HttpProtocol.most_connections = limits.connections
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        backlog=limits.backlog,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        http=HttpProtocol,
        ws=LiveProtocol,
        ws_max_size=MAX_MESSAGE_BYTES,
        # The protocol has pings of its own, which scripts see, and updates that hardly compress one by one.
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        # uvicorn's access lines carry query strings.
        access_log=False,
        log_config=None,
        log_level="warning",
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
        server_header=False,
    )
