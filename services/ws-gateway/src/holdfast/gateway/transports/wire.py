"""The last step before the socket: uvicorn's protocols, opened at the places where ASGI is too narrow.

ASGI's ``send`` takes one message, encodes it and writes it, waits for a client that does not read, and has no way to
drop a connection. The gateway writes many prebuilt frames at once, and has to close on a client that is stuck.
"""

import asyncio
import contextlib
import socket
from asyncio.transports import BaseTransport, Transport
from typing import cast

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode as StandardCode
from websockets.http11 import Request

from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Frame

__all__ = ["EXTENSION", "HttpProtocol", "HttpWire", "LiveProtocol", "Wire"]

EXTENSION = "holdfast.wire"
"""Key among the extensions of an ASGI scope: a WebSocket's :class:`Wire`, an HTTP request's :class:`HttpWire`."""

SEND_BUFFER_BYTES = 64 * 1024
"""For the kernel, and again for asyncio. Left alone, the kernel takes about 4 MB for a client that reads nothing before
anything here notices, which at a thousand such clients is the machine's memory."""

UNACKNOWLEDGED_MS = 30_000
"""How long the kernel goes on sending what nobody acknowledges. An event stream has no pongs: its comments are what fails to
arrive when a phone has left the network, and Linux alone would try for a quarter of an hour."""

REASON_BYTES = 123
"""RFC 6455: a control frame carries 125 bytes, two of which are the code."""

_OUR_CODES: dict[int, int] = {
    StandardCode.MESSAGE_TOO_BIG: CloseCode.PROTOCOL,
    StandardCode.INVALID_DATA: CloseCode.PROTOCOL,
}
"""The standard's codes are below 4500, which says: come back; and what is too long, or no text, will be so again."""


class LiveProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol, with bounded buffers, and a :class:`Wire` in its scope. Given to uvicorn as ``ws=``."""

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        _bound_buffers(self.transport)

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
    """uvicorn's protocol, with bounded buffers, and an :class:`HttpWire` in its scopes. Given to uvicorn as ``http=``."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _bound_buffers(self.transport)
        _notice_the_dead(self.transport)
        app = self.app

        async def with_wire(scope: Scope, receive: Receive, send: Send) -> None:
            scope["extensions"] = {EXTENSION: HttpWire(self)}
            await app(scope, receive, send)

        self.app = with_wire


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
