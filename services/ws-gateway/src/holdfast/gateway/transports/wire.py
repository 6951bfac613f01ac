"""The last step before the socket: uvicorn's protocols, opened at the places where ASGI is too narrow.

ASGI's ``send`` takes one message, encodes it and writes it, waits for a client that does not read, and has no way to
drop a connection. The gateway writes many prebuilt frames at once, and has to close on a client that is stuck.
"""

import asyncio
import contextlib
import json
import random
import socket
from asyncio.transports import BaseTransport, Transport
from typing import cast

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode as StandardCode
from websockets.frames import Frame as WebSocketFrame
from websockets.http11 import Request

from holdfast.gateway.clients.timers import Allowance
from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Frame
from holdfast.gateway.protocol.frames import LIMITS
from holdfast.runtime import logging
from holdfast.runtime.logging import Rarely
from holdfast.runtime.telemetry import Log, Metrics

__all__ = ["EXTENSION", "HttpProtocol", "HttpWire", "LiveProtocol", "Wire"]

log = logging.get(__name__)

refused = Rarely(seconds=60)

EXTENSION = "holdfast.wire"
"""Key among the extensions of an ASGI scope: a WebSocket's :class:`Wire`, an HTTP request's :class:`HttpWire`."""

SEND_BUFFER_BYTES = 64 * 1024
"""For the kernel, and again for asyncio. Left alone, the kernel takes about 4 MB for a client that reads nothing before
anything here notices, which at a thousand such clients is the machine's memory."""

UNACKNOWLEDGED_MS = 30_000
"""How long the kernel goes on sending what nobody acknowledges. An event stream has no pongs: its comments are what fails to
arrive when a phone has left the network, and Linux alone would try for a quarter of an hour."""

SLICE_BYTES = 1024
"""Parsed before frames are counted: at most 170 of the smallest ones, a few milliseconds of this process's time."""

CUT_SECONDS = 1.0
"""For a client that is cut to read its close frame."""

REASON_BYTES = 123
"""RFC 6455: a control frame carries 125 bytes, two of which are the code."""

_OUR_CODES: dict[int, int] = {
    StandardCode.MESSAGE_TOO_BIG: CloseCode.PROTOCOL,
    StandardCode.INVALID_DATA: CloseCode.PROTOCOL,
}
"""The standard's codes are below 4500, which says: come back; and what is too long, or no text, will be so again."""


class LiveProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol, with bounded buffers and frames, and a :class:`Wire` in its scope. Given to uvicorn as ``ws=``."""

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        _bound_buffers(self.transport)
        self._frames_left = Allowance(LIMITS.wire_frames_per_s)
        self._late_pong = b""

    def data_received(self, data: bytes) -> None:
        """Parse a slice at a time, so that a client which sends nothing but tiny frames is cut after a few hundred of them,
        and not after the ten thousand that one read of the socket brings.
        """
        for start in range(0, len(data), SLICE_BYTES):
            if self.transport.is_closing():
                return
            super().data_received(data[start : start + SLICE_BYTES])

    def handle_events(self) -> None:
        """Count every frame before it is acted on."""
        received = self.conn.events_received
        events = received()
        if not all(self._frames_left.take() for event in events if isinstance(event, WebSocketFrame)):
            return self._cut(CloseCode.RATE, f"more than {LIMITS.wire_frames_per_s} WebSocket frames a second")
        self.conn.events_received = lambda: events  # type: ignore[method-assign]
        try:
            super().handle_events()
        finally:
            self.conn.events_received = received  # type: ignore[method-assign]
        if len(self.frames) > LIMITS.fragments:
            self._cut(CloseCode.PROTOCOL, f"a message in more than {LIMITS.fragments} frames")
        return None

    def handle_ping(self) -> None:
        """Answer when there is room. While the client does not read, only its last ping counts (RFC 6455, 5.5.3)."""
        pong = b"".join(self.conn.data_to_send())
        if self.writable.is_set():
            self.transport.write(pong)
        else:
            self._late_pong = pong

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._late_pong and not self.transport.is_closing():
            pong, self._late_pong = self._late_pong, b""
            self.transport.write(pong)

    def _cut(self, code: CloseCode, reason: str) -> None:
        """Close at once; a client that does not read its close frame is dropped a second later."""
        self.conn.send_close(code, reason)
        self.handle_parser_exception()
        self.loop.call_later(CUT_SECONDS, self.transport.abort)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        fail, send_close = self.conn.fail, self.conn.send_close

        def fail_by_our_codes(code: int, reason: str = "") -> None:
            fail(_OUR_CODES.get(code, code), reason)

        def send_close_by_our_codes(code: int | None = None, reason: str = "") -> None:
            send_close(None if code is None else _OUR_CODES.get(code, code), reason)

        self.conn.fail = fail_by_our_codes  # type: ignore[method-assign]
        self.conn.send_close = send_close_by_our_codes  # type: ignore[method-assign]

    async def run_asgi(self) -> None:
        # Nothing here reads a query string, and a token put there by mistake must not reach a log line.
        self.scope["query_string"] = b""
        cast("dict[str, object]", self.scope["extensions"])[EXTENSION] = Wire(self)
        await super().run_asgi()


class Wire:
    """One accepted WebSocket, outbound."""

    def __init__(self, protocol: LiveProtocol) -> None:
        self._protocol = protocol

    def encode(self, frame: Frame) -> bytes:
        """The frame as it was made, once for all."""
        return frame.websocket

    async def write(self, data: bytes) -> bool:
        """Write ready-made WebSocket frames once the client has read enough of the earlier ones.

        Returns ``False`` when the connection is closed or closing; nothing is written then.
        """
        await self._protocol.writable.wait()
        if self._protocol.close_sent or self._protocol.disconnected or self._protocol.transport.is_closing():
            return False
        self._protocol.transport.write(data)
        return True

    def release(self) -> None:
        """Wait for this client no longer: the connection is to be closed, and even a close waits for room (uvicorn)."""
        self._protocol.writable.set()

    async def close(self, code: CloseCode, reason: str, *, abort_after_seconds: float) -> None:
        """Send the close frame, behind whatever is in the buffers, and drop the connection if that takes too long."""
        asyncio.get_running_loop().call_later(abort_after_seconds, self._protocol.transport.abort)
        text = reason.encode()[:REASON_BYTES].decode(errors="ignore")
        with contextlib.suppress(ClientDisconnected):
            await self._protocol.send({"type": "websocket.close", "code": int(code), "reason": text})


class HttpProtocol(H11Protocol):
    """uvicorn's protocol, with bounded buffers, connections and times, and an :class:`HttpWire` in its scopes. Given to
    uvicorn as ``http=``.

    Its deadlines are absolute: a byte now and then does not move them.
    """

    most_connections = 0
    """Open connections of this process, WebSockets included; set once, before the server starts. 0: no limit."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._awaited = ""
        self._is_upgraded = False
        if 0 < self.most_connections < len(self.connections):
            return self._turn_away()
        _bound_buffers(self.transport)
        _notice_the_dead(self.transport)
        self._await("head", LIMITS.head_s)
        app = self.app

        async def with_wire(scope: Scope, receive: Receive, send: Send) -> None:
            scope["extensions"] = {EXTENSION: HttpWire(self)}
            await app(scope, receive, send)

        self.app = with_wire
        return None

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

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._await("", 0)
        self._is_upgraded = True  # its request's body is never read, and what comes next is the WebSocket's
        super().handle_websocket_upgrade(event)

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
            self.transport.write(_refusal(408, "Request Timeout", f"no {self._awaited} of a request in time"))
        self._leave()

    def _turn_away(self) -> None:
        """One connection too many."""
        Metrics.turned_away.inc()
        refused.say(log.warning, Log.TOO_MANY_CONNECTIONS, limit=self.most_connections)
        self.transport.write(_refusal(503, "Service Unavailable", "too many connections; try again later"))
        self._leave()

    def _leave(self) -> None:
        self.transport.close()
        self.loop.call_later(CUT_SECONDS, self.transport.abort)


def _refusal(status: int, phrase: str, detail: str) -> bytes:
    """A whole HTTP response, as problem+json (RFC 9457), for a connection that ends with it."""
    body = json.dumps({"type": "about:blank", "title": phrase, "status": status, "detail": detail}).encode()
    retry = f"Retry-After: {random.randint(1, 5)}\r\n" if status == 503 else ""  # noqa: S311 (jitter)
    head = f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/problem+json\r\n{retry}"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


class HttpWire:
    """The connection under an HTTP response that goes on and on."""

    def __init__(self, protocol: HttpProtocol) -> None:
        self._protocol = protocol

    @property
    def is_closed(self) -> bool:
        """Whether nothing written arrives any more."""
        return self._protocol.transport.is_closing()

    async def room(self) -> None:
        """Wait until the client has read enough of what was written."""
        await self._protocol.flow.drain()

    def release(self) -> None:
        """Let nobody wait for this client any longer."""
        self._protocol.flow.resume_writing()

    def abort(self) -> None:
        """Drop the connection, whatever is still in its buffers."""
        self._protocol.transport.abort()


def _bound_buffers(transport: Transport) -> None:
    sock = cast("socket.socket | None", transport.get_extra_info("socket"))
    if sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6}:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    transport.set_write_buffer_limits(high=SEND_BUFFER_BYTES)


def _notice_the_dead(transport: Transport) -> None:
    sock = cast("socket.socket | None", transport.get_extra_info("socket"))
    if sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6} and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
