"""Frames as Server-Sent Events (WHATWG HTML, section 9.2), and the HTTP response that carries them."""

import asyncio
import json
import random
from collections.abc import Mapping, Sequence

from starlette.types import Send

from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Frame
from holdfast.gateway.protocol.frames import Close
from holdfast.gateway.transports.wire import HttpWire

__all__ = ["NO_POSITION", "EventStream"]

NO_POSITION = "-"
"""Stands in an id for a topic that there is no position of yet."""

RETRY_MS = (500, 2000)
"""How long a browser waits before it connects again: some time in between, so that a herd does not come back at once."""

PADDING = b":" + b" " * 2048 + b"\n"
"""A comment: proxies that collect the first bytes of a response, whatever its headers say, have enough with this."""

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),  # a proxy that compresses would collect events
    (b"x-accel-buffering", b"no"),  # proxies of nginx's kind would collect events
    (b"connection", b"close"),  # a stream that ends is followed by nothing
]


class EventStream:
    """A connection's outlet. Each event's id is where the client then stands: positions in the order of its topics.

    Args:
        topics: in the order of the request's address.
        positions: where the client stands already.
    """

    def __init__(self, send: Send, wire: HttpWire, topics: Sequence[str], positions: Mapping[str, str]) -> None:
        self._send = send
        self._wire = wire
        self._last: asyncio.Task[None] | None = None
        """Ends the response: uvicorn counts on being told of that, and its ``send`` is a coroutine."""
        self._positions = {topic: positions.get(topic, NO_POSITION) for topic in topics}

    @property
    def has_room(self) -> bool:
        """Whether the client has read enough of what was written."""
        return self._wire.has_room

    @property
    def is_closed(self) -> bool:
        """Whether nothing written arrives any more."""
        return self._wire.is_closed

    async def start(self) -> None:
        """Send the response's head."""
        await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        first = PADDING + b"retry: %d\n\n" % random.randint(*RETRY_MS)  # noqa: S311 (jitter)
        await self._send({"type": "http.response.body", "body": first, "more_body": True})

    def encode(self, frame: Frame) -> bytes:
        """An event with the frame's type for its name and the frame for its data; a ping is a comment."""
        if frame.kind == "ping":
            return b": ping\n\n"
        lines = [b"event: " + frame.kind.encode()]
        if frame.topic in self._positions and frame.pos:
            self._positions[frame.topic] = frame.pos
            lines.append(b"id: " + ",".join(self._positions.values()).encode())
        if frame.kind == "reconnect":
            lines.append(b"retry: %d" % json.loads(frame.payload)["after_ms"])
        return b"\n".join([*lines, b"data: " + frame.payload, b"", b""])

    def write(self, data: bytes) -> None:
        """Write events."""
        self._wire.write(data)

    def close(self, code: CloseCode, reason: str, *, abort_after_seconds: float) -> None:
        """Say why, end the response, and drop the connection when that is not done in time."""
        asyncio.get_running_loop().call_later(abort_after_seconds, self._wire.abort)
        last = Close(code=int(code), reason=reason, reconnect=not code.is_terminal)
        self._wire.release()
        self._last = asyncio.get_running_loop().create_task(self._end(self.encode(Frame.of(last))), name="stream end")

    async def _end(self, body: bytes) -> None:
        if not self._wire.is_closed:
            await self._send({"type": "http.response.body", "body": body, "more_body": False})
