"""uvicorn, told to let clients go before it closes their sockets."""

import socket

import uvicorn
from starlette.types import ASGIApp

from holdfast.gateway.clients.clients import Clients
from holdfast.gateway.transports.wire import HttpProtocol, LiveProtocol
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = ["LiveServer", "config"]

log = logging.get(__name__)

MAX_MESSAGE_BYTES = 64 * 1024
"""Longest frame that is taken off the wire at all. Above the protocol's own limit, whose refusal can say more."""

GRACEFUL_SECONDS = 3
"""For what is left after the drain: HTTP requests, and clients that did not answer their close frame."""


class LiveServer(uvicorn.Server):
    """uvicorn closes every WebSocket with 1012 the moment it is told to stop; here they are drained first."""

    def __init__(self, settings: uvicorn.Config, clients: Clients) -> None:
        super().__init__(settings)
        self._clients = clients

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
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


def config(app: ASGIApp, *, host: str, port: int) -> uvicorn.Config:
    """The one way in which the gateway is served."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
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
