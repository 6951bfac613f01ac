"""uvicorn's HTTP protocol, with a bounded number of connections, and deadlines for what a client sends."""

import asyncio
import json
import random
from asyncio.transports import Transport
from collections.abc import Callable
from http import HTTPStatus

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from holdfast.gateway.protocol.frames import LIMITS
from holdfast.gateway.transports.wire import CUT_SECONDS, EXTENSION, HttpWire, bound_buffers, notice_the_dead
from holdfast.runtime import logging
from holdfast.runtime.logging import Rarely
from holdfast.runtime.telemetry import Log, Metrics

__all__ = ["HttpProtocol"]

log = logging.get(__name__)

refused = Rarely(seconds=60)


class HttpProtocol(H11Protocol):
    """uvicorn's protocol, with bounded buffers, connections and times, and an :class:`HttpWire` in its scopes. Given to
    uvicorn as ``http=``.

    Its deadlines are absolute: a byte now and then does not move them.
    """

    flush: Callable[[], None] | None = None
    """Called when there is room again for an event stream."""

    most_connections = 0
    """Open connections of this process, WebSockets included; set once, before the server starts. 0: no limit."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._awaited = ""
        self._is_upgraded = False
        if 0 < self.most_connections < len(self.connections):
            return self._turn_away()
        bound_buffers(self.transport)
        notice_the_dead(self.transport)
        self._await("head", LIMITS.head_s)
        self.app = self._app_with_wire
        return None

    async def _app_with_wire(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"] = {EXTENSION: HttpWire(self)}
        await self.config.loaded_app(scope, receive, send)

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():
            super().data_received(data)
            self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._await("", 0)
        super().connection_lost(exc)
        self._let_go()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.flush is not None:
            self.flush()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._await("", 0)
        self._is_upgraded = True  # its request's body is never read, and what comes next is the WebSocket's
        super().handle_websocket_upgrade(event)
        self._let_go()

    def _watch(self) -> None:
        """Set the deadline of what the client has to send next. A deadline that runs already stays."""
        state = self.conn.their_state
        if self._is_upgraded:
            return
        if state is h11.IDLE and self._awaited != "head":
            self._await("head", LIMITS.head_s)
        elif state is h11.SEND_BODY and self._awaited != "body":
            self._await("body", LIMITS.body_s)
        elif state not in (h11.IDLE, h11.SEND_BODY):
            self._await("", 0)

    def _await(self, what: str, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._awaited = what
        self._deadline = self.loop.call_later(seconds, self._too_slow) if what else None

    def _too_slow(self) -> None:
        is_answered = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        is_begun = self._awaited == "body" or bool(self.conn.trailing_data[0])
        if is_begun and not is_answered:
            self.transport.write(_refusal(408, "request_timeout", f"no {self._awaited} of a request in time"))
        self._leave()

    def _turn_away(self) -> None:
        """One connection too many."""
        Metrics.turned_away.inc()
        refused.say(log.warning, Log.TOO_MANY_CONNECTIONS, limit=self.most_connections)
        self.transport.write(_refusal(503, "too_many_connections", "too many connections; try again later"))
        self._leave()

    def _let_go(self) -> None:
        """Hold on to nothing that holds on to this: what is over is then freed at once, and not by a collection some day."""
        self.app, self.flush = self.config.loaded_app, None

    def _leave(self) -> None:
        self.transport.close()
        self.loop.call_later(CUT_SECONDS, self.transport.abort)


def _refusal(status: int, code: str, detail: str) -> bytes:
    """A whole HTTP response, as problem+json (RFC 9457), for a connection that ends with it."""
    phrase = HTTPStatus(status).phrase
    about = {"type": "about:blank", "title": phrase, "status": status, "code": code, "detail": detail}
    body = json.dumps(about).encode()
    retry = f"Retry-After: {random.randint(1, 5)}\r\n" if status == 503 else ""  # noqa: S311 (jitter)
    head = f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/problem+json\r\n{retry}"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
