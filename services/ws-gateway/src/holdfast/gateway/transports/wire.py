"""The last step before the socket, where ASGI is too narrow.

ASGI's ``send`` takes one message, encodes it and writes it, waits for a client that does not read, and has no way to
drop a connection. The gateway writes many prebuilt frames at once, and has to close on a client that is stuck. And ASGI
keeps a task, a queue and the request's head for as long as a WebSocket is open: 20 KB that say nothing after its ``hello``.
"""

import socket
from asyncio.transports import Transport
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

import h11

from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Frame

if TYPE_CHECKING:  # they make the wires
    from holdfast.gateway.transports.http_protocol import HttpProtocol
    from holdfast.gateway.transports.live_protocol import LiveProtocol

__all__ = ["CUT_SECONDS", "EXTENSION", "HttpWire", "Listener", "Wire", "bound_buffers", "notice_the_dead"]

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


class Listener(Protocol):
    """Told what a client says. It never waits."""

    def on_text(self, text: str | None) -> None:
        """A message; ``None`` is a binary one."""

    def on_gone(self) -> None:
        """The WebSocket is closed or about to be, by either side. Told once."""


class Wire:
    """One accepted WebSocket, outbound: a ``Connection``'s outlet."""

    __slots__ = ("_protocol",)

    def __init__(self, protocol: "LiveProtocol") -> None:
        self._protocol = protocol

    @property
    def has_room(self) -> bool:
        """Whether the client has read enough of what was written."""
        return self._protocol.has_room

    @property
    def is_closed(self) -> bool:
        """Whether nothing written arrives any more: closed, or closing, by either side."""
        protocol = self._protocol
        return protocol.close_sent or protocol.disconnected or protocol.transport.is_closing()

    def encode(self, frame: Frame) -> bytes:
        """The frame as it was made, once for all."""
        return frame.websocket

    def write(self, data: bytes) -> None:
        """Write ready-made WebSocket frames."""
        self._protocol.transport.write(data)

    def close(self, code: CloseCode, reason: str, *, abort_after_seconds: float) -> None:
        """Send the close frame, behind whatever is in the buffers, and drop the connection if that takes too long."""
        self._protocol.loop.call_later(abort_after_seconds, self._protocol.transport.abort)
        self._protocol.say_goodbye(code, reason.encode()[:REASON_BYTES].decode(errors="ignore"))

    def on_room(self, flush: Callable[[], None]) -> None:
        """Call this whenever there is room again."""
        self._protocol.flush = flush

    def hand_over(self, listener: Listener) -> None:
        """Tell the listener from now on what the client says, and what it has said since the last message was received.

        The request's task ends meanwhile, and with it everything that is only of use for a handshake.
        """
        self._protocol.hand_over(listener)


class HttpWire:
    """The connection under an HTTP response that goes on and on."""

    def __init__(self, protocol: "HttpProtocol") -> None:
        self._protocol = protocol

    @property
    def has_room(self) -> bool:
        """Whether the client has read enough of what was written."""
        return not self._protocol.flow.write_paused

    @property
    def is_closed(self) -> bool:
        """Whether nothing written arrives any more, or the response has ended."""
        return self._protocol.transport.is_closing() or self._protocol.conn.our_state is not h11.SEND_BODY

    def write(self, data: bytes) -> None:
        """Write a part of the response's body, whether there is room or not."""
        self._protocol.transport.write(self._protocol.conn.send(h11.Data(data=data)) or b"")

    def on_room(self, flush: Callable[[], None]) -> None:
        """Call this whenever there is room again."""
        self._protocol.flush = flush

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
