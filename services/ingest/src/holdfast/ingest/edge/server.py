"""The server: uvicorn reads requests in one loop, Flask answers them in threads. One process; scale by replicas."""

import asyncio
import signal
import sys
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from flask import Flask

from holdfast.ingest.edge import wsgi
from holdfast.ingest.edge.body import Disconnected, body_limit, check_framing, read_body
from holdfast.ingest.edge.connection import MAX_HEAD_BYTES, Connection, connection_class
from holdfast.ingest.edge.crowd import Crowd
from holdfast.ingest.edge.refusal import Refusal, note, problem_response
from holdfast.ingest.edge.threads import Threads
from holdfast.runtime import logging
from holdfast.runtime.listening import BACKLOG, connection_limit, open_listener
from holdfast.runtime.settings import IngestSettings
from holdfast.runtime.telemetry import Log

__all__ = ["serve", "Edge"]

log = logging.get(__name__)

MAX_CONNECTIONS = 4096
"""Beyond it the one that has waited longest is dropped. Each costs about 20 kB."""

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Of all bodies in memory, or eight of the longest events where that is more."""

KEEP_ALIVE_SECONDS = 75
"""Above the idle time of common load balancers, so that they never meet a closing connection."""

GRACEFUL_SECONDS = 25

SWITCH_SECONDS = 0.0005
"""How long a thread that computes keeps the interpreter from the loop. With Python's five milliseconds the loop, which every
request passes four times, waits most of its time."""

ACCEPTED_AT_ONCE = 32
"""Connections accepted before the limit can act; less than the descriptors that are reserved."""


class Edge:
    """Serves one application."""

    def __init__(self, app: Flask, settings: IngestSettings, threads: Threads) -> None:
        self._app = app.wsgi_app
        self._settings = settings
        self._threads = threads
        self.crowd: Crowd[Connection] = Crowd(
            most_connections=connection_limit(MAX_CONNECTIONS),
            most_bytes=max(MAX_BODY_BYTES, 8 * max(settings.max_event_bytes, settings.max_batch_bytes)),
        )

    async def serve(self, connection: Connection, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        try:
            check_framing(dict(headers), scope["http_version"])
            body = await read_body(connection, receive, dict(headers), body_limit(dict(headers), self._settings))
        except Disconnected:
            return
        except Refusal as refusal:
            note(refusal.code)
            await _send(send, (refusal.status, *problem_response(refusal)))
            return
        self.crowd.serve(connection)
        try:
            environ = wsgi.environ_of(scope, headers, body)
            answer = await self._threads.call(environ["PATH_INFO"], partial(self._run, connection, environ))
        finally:
            self.crowd.free(len(body))
        if connection.cycle.more_body:  # what is left of it would be read as the next request
            connection.cycle.keep_alive = False
            answer[1].append((b"connection", b"close"))
        await _send(send, answer)

    def _run(self, connection: Connection, environ: dict[str, Any]) -> wsgi.Answer:
        if connection.transport.is_closing():  # it left while it waited for a thread
            return 499, [], b""
        return wsgi.run(self._app, environ)


def serve(app: Flask, settings: IngestSettings, threads: Threads) -> None:
    """Serve until SIGTERM; then let what has begun end, for 25 s at most.

    Raises:
        OSError: the port is taken.
        ConfigurationError: the host is no address.
    """
    listener = open_listener(settings.ingest_host, settings.ingest_port)
    # uvicorn takes these over while it serves, and raises what it got again when it is done: then that means success.
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, _exit)
    edge = Edge(app, settings, threads)
    config = uvicorn.Config(
        edge.serve, interface="asgi3", lifespan="off", ws="none", backlog=ACCEPTED_AT_ONCE, server_header=False,
        http=connection_class(crowd=edge.crowd, serve=edge.serve, request_seconds=settings.ingest_request_seconds),
        h11_max_incomplete_event_size=MAX_HEAD_BYTES, timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACEFUL_SECONDS, access_log=False, log_config=None, log_level="error",
    )  # fmt: skip
    sys.setswitchinterval(SWITCH_SECONDS)
    _Server(config).run([listener])


class _Server(uvicorn.Server):
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        for listener in sockets:
            listener.listen(BACKLOG)  # uvicorn's backlog is also how many it accepts in one turn
        self._is_told = logging.Rarely(seconds=60)
        asyncio.get_running_loop().set_exception_handler(self._on_loop_error)

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), OSError):
            loop.default_exception_handler(context)
        elif self._is_told.is_due():  # asyncio accepts again after a second, by itself
            log.error(Log.ACCEPT_FAILED, reason=type(context["exception"]).__name__)


async def _send(send: Any, answer: wsgi.Answer) -> None:
    status, headers, body = answer
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _exit(_: int, __: FrameType | None) -> None:
    sys.exit(0)
