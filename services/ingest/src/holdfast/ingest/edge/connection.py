"""One connection: its requests one after the other, absolute deadlines, and a place in the crowd.

The time limits count from the connection's beginning, or from the first byte of its next request, however many bytes arrive.
Connections set no timers: the server looks at all of them a few times a second.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from holdfast.ingest.edge.crowd import Crowd
from holdfast.ingest.edge.reading import Limits, Reader, Request
from holdfast.ingest.edge.refusal import Refusal, note, problem_response
from holdfast.ingest.edge.wsgi import encode

__all__ = ["HEAD_SECONDS", "Connection", "House"]

HEAD_SECONDS = 10.0
"""A head is a kilobyte: ten seconds are enough for any network. A new connection has as long for its first byte."""

FLUSH_SECONDS = 30.0
"""A response has to be taken within this time, however slowly it is read."""

KEEP_ALIVE_SECONDS = 75.0
"""Above the idle time of common load balancers, so that they never meet a closing connection."""

DISCARD_SECONDS = 2.0
DISCARD_BYTES = 64 * 1024 * 1024
"""So much of a body that is too long is read and dropped before the answer: most clients read it only when they have sent
everything, and a connection that is closed with unread bytes is reset, which can take the answer with it."""

NEVER = float("inf")


@dataclass(slots=True)
class House:
    """What all connections of a server share.

    Args:
        serve: takes a whole request; :meth:`Connection.answer` is called with its answer later, in the loop.
        buffer: where bytes are received. What arrives is read at once, so one is enough.
        clock: the loop's, in seconds.
    """

    crowd: Crowd["Connection"]
    limits: Limits
    request_seconds: float
    serve: Callable[["Connection", Request], None]
    buffer: memoryview
    clock: Callable[[], float]
    is_stopping: bool = False


class Connection(asyncio.BufferedProtocol):
    """Reads requests whole; one at a time is being served, and the others wait."""

    def __init__(self, house: House) -> None:
        self.environ: dict[str, Any] = {}
        """What every request of this connection says to the application."""
        self.is_gone = False
        self._house = house
        self._reader = Reader(house.limits, house.crowd.keep)
        self._transport: asyncio.Transport
        self._served: Request | None = None
        self._refusal: Refusal | None = None
        self._due_at = house.clock() + min(HEAD_SECONDS, house.request_seconds)
        self._body_due_at = 0.0
        self._flush_due_at = NEVER
        self._has_begun = False
        """Bytes of a request have arrived that is not being served yet."""
        self._has_continued = False
        self._is_known = False
        self._is_write_paused = False
        self._is_read_paused = False

    # What asyncio calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The client is there."""
        self._transport = transport
        server, client = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        self.environ = {
            "SERVER_NAME": str(server[0]) if server else "",
            "SERVER_PORT": str(server[1]) if server else "0",
            "REMOTE_ADDR": str(client[0]) if client else "",
        }
        self._house.crowd.await_input(self, is_known=False)
        self._house.crowd.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or has been sent away."""
        del exc
        self.is_gone = True
        reader = self._reader
        self._house.crowd.free(
            sum(each.weight for each in reader.whole) + (reader.request.weight if reader.request else 0)
        )
        reader.whole.clear()
        reader.request = None
        self._house.crowd.leave(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to receive."""
        del sizehint
        return self._house.buffer

    def buffer_updated(self, count: int) -> None:
        """So many bytes have been received."""
        if self._transport.is_closing() or self._refusal is not None:
            return
        reader = self._reader
        try:
            reader.feed(self._house.buffer[:count])
        except Refusal as refusal:
            self._refusal = refusal
        if self._served is None and not self._is_write_paused:
            self._go_on()
        elif reader.whole:
            self._pause_reading()

    def eof_received(self) -> bool:
        """A client that has sent its request and closes its side still gets its answer."""
        self._reader.has_ended = True
        return self._served is not None or bool(self._reader.whole)

    def pause_writing(self) -> None:
        """The client does not read: no further request of its is served."""
        self._is_write_paused = True

    def resume_writing(self) -> None:
        """It does again."""
        self._is_write_paused = False
        if self._served is None and not self._transport.is_closing():
            self._go_on(has_answered=True)

    # What the server calls.

    def answer(self, request: Request, data: bytes, *, is_last: bool) -> None:
        """Send the answer to the request that was served; behind the last one the connection is closed."""
        self._served = None
        self._house.crowd.free(request.weight)
        if self._transport.is_closing():
            return
        self._is_known = True
        self._transport.write(data)
        self._limit_flush()
        if is_last or self._house.is_stopping:
            self._transport.close()
        elif not self._is_write_paused:
            self._go_on(has_answered=True)

    def look(self, now: float) -> None:
        """Act on what is over its time."""
        if now >= self._flush_due_at:
            self._end_flush()
        if now < self._due_at or self._transport.is_closing():
            return
        if not self._has_begun:
            if self._is_known:
                self._transport.close()
                return
            note("silent")
            self.evict()
        elif (request := self._reader.request) is None:
            self._refuse(_late(f"head has to arrive within {HEAD_SECONDS:g} seconds of its first byte"))
        elif request.size >= request.most:
            self._serve(self._reader.cut(request))  # too long anyhow, which is the better answer
        else:
            self._refuse(_late(f"request has to arrive whole within {self._house.request_seconds:g} seconds"))

    def retire(self) -> None:
        """The server stops: nothing begins any more, what has begun ends."""
        if self._served is None and self._reader.request is None:
            self._transport.close()

    def evict(self) -> None:
        """Drop the connection, whatever is in its buffers."""
        self._transport.abort()

    # Where it stands.

    def _go_on(self, *, has_answered: bool = False) -> None:
        """Nothing is served: serve the next request, or wait for it."""
        reader = self._reader
        if reader.whole:
            self._serve(reader.whole.popleft())
        elif self._refusal is not None:
            self._refuse(self._refusal)
        elif reader.has_ended:
            self._transport.close()
        else:
            self._resume_reading()
            if has_answered:
                self._due_at = self._house.clock() + KEEP_ALIVE_SECONDS
                self._house.crowd.await_input(self, is_known=True)
            if reader.has_begun:
                self._await_rest(reader.request)

    def _serve(self, request: Request) -> None:
        self._served = request
        self._due_at = NEVER
        self._has_begun = self._has_continued = False
        house = self._house
        house.crowd.serve(self)
        house.serve(self, request)
        if self._reader.whole:
            self._pause_reading()

    def _await_rest(self, request: Request | None) -> None:
        house = self._house
        if not self._has_begun:
            now = house.clock()
            self._has_begun = True
            self._due_at = now + min(HEAD_SECONDS, house.request_seconds)
            self._body_due_at = now + house.request_seconds
        if request is None:
            return
        if request.is_too_long:
            self._due_at = min(self._due_at, self._body_due_at, house.clock() + DISCARD_SECONDS)
            if request.size > request.most + DISCARD_BYTES:
                self._serve(self._reader.cut(request))
            return
        self._due_at = self._body_due_at
        if request.waits_for_continue and not self._has_continued:
            self._has_continued = True
            if request.is_announced_too_long:
                self._serve(self._reader.cut(request))  # it has not been sent, and need not be
            else:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _refuse(self, refusal: Refusal) -> None:
        """Answer with a problem, and close."""
        note(refusal.code)
        self._reader.has_ended = True
        self._refusal = refusal
        headers, body = problem_response(refusal)
        self._transport.write(encode((refusal.status, headers, body), keep_alive=True))
        self._transport.close()
        self._limit_flush()

    def _limit_flush(self) -> None:
        """Responses that are left in the buffer have to be taken in time, however slowly they are read."""
        if not self._transport.get_write_buffer_size():
            self._flush_due_at = NEVER
        elif self._flush_due_at == NEVER:
            self._flush_due_at = self._house.clock() + FLUSH_SECONDS

    def _end_flush(self) -> None:
        self._flush_due_at = NEVER
        if self._transport.get_write_buffer_size():
            note("slow_reader")
            self.evict()

    def _pause_reading(self) -> None:
        if not self._is_read_paused:
            self._is_read_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._is_read_paused:
            self._is_read_paused = False
            self._transport.resume_reading()


def _late(what: str) -> Refusal:
    return Refusal(408, "request_timeout", f"a request's {what}; send it again at once")
