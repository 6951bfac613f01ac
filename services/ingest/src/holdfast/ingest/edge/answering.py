"""The way of a whole request: from the loop to a thread, through the application, and back to the loop with its answer."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from holdfast.ingest.edge import wsgi
from holdfast.ingest.edge.connection import Connection
from holdfast.ingest.edge.reading import Request
from holdfast.ingest.edge.refusal import Refusal, problem_response
from holdfast.ingest.edge.threads import Threads
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = ["Answering", "App"]

log = logging.get(__name__)

App = Callable[[dict[str, Any]], wsgi.Answer]
"""Answers a WSGI environment."""


class Answering:
    """Serves the requests of all connections with one application.

    A request costs the loop no task, no future and no timer. Answers are gathered, so that one call wakes the loop for all
    that are ready.
    """

    def __init__(self, app: App, threads: Threads) -> None:
        self._app = app
        self._threads = threads
        self._answers: deque[tuple[Connection, Request, bytes, bool]] = deque()
        self._is_called = False

    def serve(self, loop: asyncio.AbstractEventLoop, connection: Connection, request: Request) -> None:
        """Answer the request in a thread."""
        self._threads.begin(request.path, partial(self._run, loop, connection, request))

    def _run(self, loop: asyncio.AbstractEventLoop, connection: Connection, request: Request) -> None:
        """In a thread."""
        data, keep_alive = b"", False
        if not connection.is_gone:  # it may have left while it waited for a thread
            keep_alive = request.keep_alive and request.is_whole
            data = self._answer(request, connection.environ, keep_alive)
        self._answers.append((connection, request, data, not keep_alive))
        if not self._is_called:
            self._is_called = True
            with suppress(RuntimeError):  # the loop has ended, and nobody waits
                loop.call_soon_threadsafe(self._send)

    def _answer(self, request: Request, environ: dict[str, Any], keep_alive: bool) -> bytes:
        try:
            return wsgi.encode(self._app(wsgi.environ_of(request, environ)), keep_alive=keep_alive)
        except Exception:  # the application turns its own into answers; a thread has to survive whatever is left
            log.exception(Log.REQUEST_FAILED)
            refusal = Refusal(500, "internal", "something went wrong here; sending the same event again is safe")
            return wsgi.encode((refusal.status, *problem_response(refusal)), keep_alive=True)

    def _send(self) -> None:
        """In the loop."""
        self._is_called = False  # first: an answer that comes from here on calls again
        while self._answers:
            connection, request, data, is_last = self._answers.popleft()
            connection.answer(request, data, is_last=is_last)
