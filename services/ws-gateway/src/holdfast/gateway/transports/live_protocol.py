"""uvicorn's WebSocket protocol, with bounds on what a client may send and on what waits for it."""

import asyncio
from asyncio.transports import BaseTransport
from collections.abc import Callable
from typing import cast

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode as StandardCode
from websockets.frames import Frame as WebSocketFrame
from websockets.protocol import State
from websockets.server import ServerProtocol

from holdfast.gateway.clients.timers import Allowance
from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.frames import LIMITS
from holdfast.gateway.transports.wire import CUT_SECONDS, EXTENSION, Listener, Wire, bound_buffers

__all__ = ["LiveProtocol"]

SLICE_BYTES = 1024
"""Parsed before frames are counted: at most 170 of the smallest ones, a few milliseconds of this process's time."""

_OUR_CODES: dict[int, int] = {
    StandardCode.MESSAGE_TOO_BIG: CloseCode.PROTOCOL,
    StandardCode.INVALID_DATA: CloseCode.PROTOCOL,
}
"""The standard's codes are below 4500, which says: come back; and what is too long, or no text, will be so again."""


_WRITABLE = asyncio.Event()
_WRITABLE.set()
"""For every handed-over WebSocket: uvicorn sets it when a connection is lost, and nobody waits for it any more."""


class _Inbox:
    """Stands in for uvicorn's queue of messages to the application, and tells a listener instead of keeping them."""

    __slots__ = ("_listener",)

    def __init__(self, listener: Listener) -> None:
        self._listener: Listener | None = listener

    def put_nowait(self, message: ASGIReceiveEvent) -> None:
        """Pass a message on; after the first disconnect, none."""
        listener = self._listener
        if listener is None:
            return
        if message["type"] == "websocket.disconnect":
            self._listener = None
            listener.on_gone()
        elif message["type"] == "websocket.receive":
            listener.on_text(message.get("text"))

    def empty(self) -> bool:
        """Nothing ever waits."""
        return True


class _Parser(ServerProtocol):
    """The library's state machine, which fails with our codes."""

    def fail(self, code: int, reason: str = "") -> None:
        super().fail(_OUR_CODES.get(code, code), reason)

    def send_close(self, code: int | None = None, reason: str = "") -> None:
        super().send_close(None if code is None else _OUR_CODES.get(code, code), reason)


class LiveProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol, with bounded buffers and frames, and a :class:`Wire` in its scope. Given to uvicorn as ``ws=``."""

    flush: Callable[[], None] | None = None
    """Called when there is room again."""

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        bound_buffers(self.transport)
        self.conn = self._parser(State.CONNECTING)
        self._frames_left = Allowance(LIMITS.wire_frames_per_s)
        self._late_pong = b""
        self._is_handed_over = False
        self.has_room = True

    def hand_over(self, listener: Listener) -> None:
        """See :class:`Wire`."""
        self._is_handed_over = True
        waiting, self.queue = self.queue, cast("asyncio.Queue[ASGIReceiveEvent]", _Inbox(listener))
        while not waiting.empty():
            self.queue.put_nowait(waiting.get_nowait())
        if self.read_paused:
            self.transport.resume_reading()
        self.read_paused = True  # so that uvicorn does not pause for a message that has been acted on already
        self.writable = _WRITABLE
        del self.scope, self.request, self.response

    def say_goodbye(self, code: int, reason: str) -> None:
        """Send a close frame, without waiting for room: as uvicorn does for an application that closes."""
        if self.close_sent or self.disconnected or self.transport.is_closing():
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)

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
        events = self.conn.events_received()
        if not all(self._frames_left.take() for event in events if isinstance(event, WebSocketFrame)):
            return self._cut(CloseCode.RATE, f"more than {LIMITS.wire_frames_per_s} WebSocket frames a second")
        self.conn.events_received = lambda: events  # type: ignore[method-assign]
        try:
            super().handle_events()
        finally:
            del self.conn.events_received
        if len(self.frames) > LIMITS.fragments:
            self._cut(CloseCode.PROTOCOL, f"a message in more than {LIMITS.fragments} frames")
        return None

    def handle_ping(self) -> None:
        """Answer when there is room. While the client does not read, only its last ping counts (RFC 6455, 5.5.3)."""
        pong = b"".join(self.conn.data_to_send())
        if self.has_room:
            self.transport.write(pong)
        else:
            self._late_pong = pong

    def pause_writing(self) -> None:
        self.has_room = False
        if not self._is_handed_over:
            super().pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.has_room = True
        if self._late_pong and not self.transport.is_closing():
            pong, self._late_pong = self._late_pong, b""
            self.transport.write(pong)
        if self.flush is not None:
            self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.flush = None

    def _cut(self, code: CloseCode, reason: str) -> None:
        """Close at once; a client that does not read its close frame is dropped a second later."""
        self.conn.send_close(code, reason)
        self.handle_parser_exception()
        self.loop.call_later(CUT_SECONDS, self.transport.abort)

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.accept" and self.handshake_complete and not self.conn.reader.buffer:
            # The handshake's parser keeps the whole request for as long as the WebSocket is open.
            self.conn = self._parser(State.OPEN)

    def _parser(self, state: State) -> ServerProtocol:
        return _Parser(state=state, max_size=self.config.ws_max_size, logger=self.logger)

    async def run_asgi(self) -> None:
        # Nothing here reads a query string, and a token put there by mistake must not reach a log line.
        self.scope["query_string"] = b""
        cast("dict[str, object]", self.scope["extensions"])[EXTENSION] = Wire(self)
        try:
            await self.app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except BaseException:
            self.logger.exception("Exception in ASGI application\n")
            self.send_500_response()
        if not self._is_handed_over and self.close_timer is None:
            self.transport.close()
