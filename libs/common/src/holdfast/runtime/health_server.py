"""A small HTTP server for health and metrics: bounded connections, one absolute deadline each, one answer each.

It has an event loop in a thread of its own, so idle sockets cost no thread, and the process's work cannot hold it up.
"""

import asyncio
import io
import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from typing import Any

from holdfast.runtime.listening import connection_limit

__all__ = ["Answer", "Routes", "serve_in_thread"]

MAX_CONNECTIONS = 64
"""Beyond it the oldest one is dropped. Scrapers and probes are few, and need milliseconds."""

CONNECTION_SECONDS = 10.0
"""For all of it: the request, the answer, and reading it."""

MAX_HEAD_BYTES = 16 * 1024

Answer = tuple[int, bytes, str]
"""Status, body, content type."""

Routes = Mapping[str, Callable[[], Answer]]


def serve_in_thread(listener: socket.socket, routes: Routes, otherwise: Answer) -> None:
    """Serve GET requests in a daemon thread; each path has a thread of its own, so that a slow one holds no other up."""
    server = _Server(routes, otherwise)
    threading.Thread(target=lambda: asyncio.run(server.run(listener)), name="health", daemon=True).start()


class _Server:
    def __init__(self, routes: Routes, otherwise: Answer) -> None:
        self._routes = routes
        self._otherwise = otherwise
        self._pools = {path: ThreadPoolExecutor(1, f"health{path}") for path in routes}
        self._open: dict[asyncio.StreamWriter, None] = {}
        self._most = connection_limit(MAX_CONNECTIONS)

    async def run(self, listener: socket.socket) -> None:
        server = await asyncio.start_server(self._serve, sock=listener, limit=MAX_HEAD_BYTES, backlog=32)
        await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[writer] = None
        if len(self._open) > self._most:
            next(iter(self._open)).transport.abort()
        try:
            async with asyncio.timeout(CONNECTION_SECONDS):
                writer.write(await self._answer(await reader.readuntil(b"\r\n\r\n")))
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()
        finally:
            self._open.pop(writer, None)

    async def _answer(self, head: bytes) -> bytes:
        request = _Request(head)
        route = self._routes.get(request.path.partition("?")[0])
        if request.refusal:
            return request.refusal
        if route is None:
            return request.answer(self._otherwise)
        pool = self._pools[request.path.partition("?")[0]]
        return request.answer(await asyncio.get_running_loop().run_in_executor(pool, route))


class _Request(BaseHTTPRequestHandler):
    """The standard library's parser and formatter, without its socket. ``refusal`` is its answer to what it cannot read."""

    path = ""

    def __init__(self, head: bytes) -> None:
        self.rfile = io.BufferedReader(io.BytesIO(head))
        self.wfile = self._written = io.BytesIO()
        self.raw_requestline = self.rfile.readline(65537)
        is_readable = self.parse_request()
        if is_readable and self.command not in {"GET", "HEAD"}:
            self.send_error(405, "only GET and HEAD are served here")
        self.refusal = self._written.getvalue()

    def answer(self, answer: Answer) -> bytes:
        """An HTTP response."""
        status, body, content_type = answer
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return self._written.getvalue() + (b"" if self.command == "HEAD" else body)

    def log_message(self, *_: Any) -> None:
        """Scrapes are not worth a line each."""
