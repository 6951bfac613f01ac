"""uvicorn's WebSocket protocol, with bounds on what a client may send and on what waits for it."""

from asyncio.transports import BaseTransport
from typing import cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode as StandardCode
from websockets.frames import Frame as WebSocketFrame
from websockets.http11 import Request

from holdfast.gateway.clients.timers import Allowance
from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.frames import LIMITS
from holdfast.gateway.transports.wire import CUT_SECONDS, EXTENSION, Wire, bound_buffers

__all__ = ["LiveProtocol"]

SLICE_BYTES = 1024
"""Parsed before frames are counted: at most 170 of the smallest ones, a few milliseconds of this process's time."""

_OUR_CODES: dict[int, int] = {
    StandardCode.MESSAGE_TOO_BIG: CloseCode.PROTOCOL,
    StandardCode.INVALID_DATA: CloseCode.PROTOCOL,
}
"""The standard's codes are below 4500, which says: come back; and what is too long, or no text, will be so again."""


class LiveProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol, with bounded buffers and frames, and a :class:`Wire` in its scope. Given to uvicorn as ``ws=``."""

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        bound_buffers(self.transport)
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
