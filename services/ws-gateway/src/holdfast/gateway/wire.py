"""The last step before the socket: uvicorn's WebSocket protocol, opened at the three places where ASGI is too narrow.

ASGI's ``send`` takes one message, encodes it and writes it, waits for a client that does not read, and has no way to
drop a connection. The gateway writes many prebuilt frames at once, and has to close on a client that is stuck.
"""

import asyncio
import contextlib
import socket
from asyncio.transports import BaseTransport
from typing import cast

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode as StandardCode
from websockets.http11 import Request

from holdfast.gateway.close_codes import CloseCode

__all__ = ["EXTENSION", "LiveProtocol", "Wire"]

EXTENSION = "holdfast.wire"
"""Key of the :class:`Wire` among the extensions of a WebSocket's ASGI scope."""

SEND_BUFFER_BYTES = 64 * 1024
"""For the kernel, and again for asyncio. Left alone, the kernel takes about 4 MB for a client that reads nothing before
anything here notices, which at a thousand such clients is the machine's memory."""

REASON_BYTES = 123
"""RFC 6455: a control frame carries 125 bytes, two of which are the code."""


class LiveProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol, with bounded buffers, and a :class:`Wire` in its scope. Given to uvicorn as ``ws=``."""

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        sock = cast("socket.socket | None", transport.get_extra_info("socket"))
        if sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6}:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.transport.set_write_buffer_limits(high=SEND_BUFFER_BYTES)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        fail = self.conn.fail

        def fail_by_our_codes(code: int, reason: str = "") -> None:
            # The standard's 1009 is below 4500, which says: come back; and what is too long will be so again.
            fail(CloseCode.PROTOCOL if code == StandardCode.MESSAGE_TOO_BIG else code, reason)

        self.conn.fail = fail_by_our_codes  # type: ignore[method-assign]

    async def run_asgi(self) -> None:
        # Nothing here reads a query string, and a token put there by mistake must not reach a log line.
        self.scope["query_string"] = b""
        cast("dict[str, object]", self.scope["extensions"])[EXTENSION] = Wire(self)
        await super().run_asgi()


class Wire:
    """One accepted WebSocket, outbound."""

    def __init__(self, protocol: LiveProtocol) -> None:
        self._protocol = protocol

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
