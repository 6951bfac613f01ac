"""The last step before the socket, where ASGI is too narrow.

ASGI's ``send`` takes one message, encodes it and writes it, waits for a client that does not read, and has no way to
drop a connection. The gateway writes many prebuilt frames at once, and has to close on a client that is stuck.
"""

import asyncio
import contextlib
import socket
from asyncio.transports import Transport
from typing import TYPE_CHECKING, cast

from uvicorn.protocols.utils import ClientDisconnected

from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Frame

if TYPE_CHECKING:  # they make the wires
    from holdfast.gateway.transports.http_protocol import HttpProtocol
    from holdfast.gateway.transports.live_protocol import LiveProtocol

__all__ = ["CUT_SECONDS", "EXTENSION", "HttpWire", "Wire", "bound_buffers", "notice_the_dead"]

EXTENSION = "holdfast.wire"
"""Key among the extensions of an ASGI scope: a WebSocket's :class:`Wire`, an HTTP request's :class:`HttpWire`."""

SEND_BUFFER_BYTES = 64 * 1024
"""For the kernel, and again for asyncio. Left alone, the kernel takes about 4 MB for a client that reads nothing before
anything here notices, which at a thousand such clients is the machine's memory."""

UNACKNOWLEDGED_MS = 30_000
"""How long the kernel goes on sending what nobody acknowledges. An event stream has no pongs: its comments are what fails to
arrive when a phone has left the network, and Linux alone would try for a quarter of an hour."""

CUT_SECONDS = 1.0
"""For a client that is cut to read its close frame."""

REASON_BYTES = 123
"""RFC 6455: a control frame carries 125 bytes, two of which are the code."""


class Wire:
    """One accepted WebSocket, outbound."""

    def __init__(self, protocol: "LiveProtocol") -> None:
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


class HttpWire:
    """The connection under an HTTP response that goes on and on."""

    def __init__(self, protocol: "HttpProtocol") -> None:
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


def bound_buffers(transport: Transport) -> None:
    """Keep what waits for a slow client small, in the kernel and in asyncio."""
    sock = cast("socket.socket | None", transport.get_extra_info("socket"))
    if sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6}:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    transport.set_write_buffer_limits(high=SEND_BUFFER_BYTES)


def notice_the_dead(transport: Transport) -> None:
    """Let the kernel end a connection whose client acknowledges nothing any more."""
    sock = cast("socket.socket | None", transport.get_extra_info("socket"))
    if sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6} and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
