"""One connection: uvicorn's protocol with absolute deadlines and a place in the crowd.

The time limits count from the connection's beginning, or from the first byte of its next request, however many bytes arrive.
"""

import asyncio
import sys
from asyncio.transports import Transport
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from holdfast.ingest.edge.crowd import Crowd
from holdfast.ingest.edge.refusal import Refusal, note, problem_response

__all__ = ["HEAD_SECONDS", "MAX_HEAD_BYTES", "Connection", "connection_class"]

HEAD_SECONDS = 10.0
"""A head is a kilobyte: ten seconds are enough for any network. A new connection has as long for its first byte."""

MAX_HEAD_BYTES = 64 * 1024
"""Request line and headers together; more are answered with 431."""

FLUSH_SECONDS = 30.0
"""A response has to be taken within this time, however slowly it is read."""

_REMEDIES = {
    400: "this is not HTTP/1.1 as RFC 9112 has it; look at the request line, the headers and the framing of the body",
    431: f"the request line and the headers have at most {MAX_HEAD_BYTES} bytes together; send fewer or shorter ones",
    501: "the only transfer coding is chunked; send the body with it or with Content-Length",
}

Serve = Callable[["Connection", Any, Any, Any], Awaitable[None]]


class Connection(H11Protocol):
    """Made by :func:`connection_class`, as uvicorn makes connections by itself."""

    crowd: Crowd["Connection"]
    serve: Serve
    body_deadline = 0.0
    """Loop time at which the request that has begun has to be whole."""
    request_seconds: float
    _timer: asyncio.TimerHandle | None = None
    _flush_timer: asyncio.TimerHandle | None = None
    _has_begun = False
    """Bytes of a request have arrived that is not being served yet."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)

        async def serve(scope: Any, receive: Any, send: Any) -> None:
            await type(self).serve(self, scope, receive, send)

        self.app = serve
        self._limit_head()
        self.crowd.await_input(self, is_known=False)
        self.crowd.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_timer()
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        self.crowd.leave(self)

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that has sent its request and closes its side still gets its answer."""
        is_answering = self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body
        if is_answering:
            self.cycle.keep_alive = False
        return is_answering

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._is_idle() and not self._has_begun:
            self._limit_head()
            self._has_begun = True
        self._limit_flush()
        super().data_received(data)

    def on_response_complete(self) -> None:
        self._limit_flush()
        self.body_deadline = self.loop.time() + self.request_seconds
        super().on_response_complete()
        if self._is_idle() and not self.transport.is_closing():
            self._has_begun = bool(self.conn.trailing_data[0])
            if self._has_begun:
                self._limit_head()
        self.crowd.await_input(self, is_known=True)

    def begin_body(self) -> float:
        """The head is whole. Returns the loop time at which the body has to be."""
        self._unset_timer()
        self._has_begun = False
        return self.body_deadline

    def evict(self) -> None:
        """Drop the connection, whatever is in its buffers."""
        self._unset_timer()
        self.transport.abort()

    def refuse(self, refusal: Refusal) -> None:
        """Answer with a problem if nothing has been answered yet, and close. The application hears of a disconnect."""
        note(refusal.code)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started:
                self.evict()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        headers, body = problem_response(refusal)
        line = f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}\r\n".encode()
        self.transport.write(line + b"".join(b"%s: %s\r\n" % pair for pair in headers) + b"\r\n" + body)
        self.transport.close()
        self._unset_timer()
        self._limit_flush()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (uvicorn's text; the exception at hand knows more)
        status = getattr(sys.exception(), "error_status_hint", 400)
        status = status if status in _REMEDIES else 400
        code = {431: "head_too_large", 501: "unsupported_transfer_coding"}.get(status, "bad_request")
        self.refuse(Refusal(status, code, _REMEDIES[status]))

    def _should_upgrade(self) -> bool:
        """There is nothing to upgrade to; RFC 9110 lets a server ignore the header."""
        return False

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _limit_head(self) -> None:
        self.body_deadline = self.loop.time() + self.request_seconds
        self._set_timer(min(HEAD_SECONDS, self.request_seconds), self._end_head)

    def _limit_flush(self) -> None:
        """Responses that are left in the buffer have to be taken in time, however slowly they are read."""
        if not self.transport.get_write_buffer_size():
            if self._flush_timer is not None:
                self._flush_timer.cancel()
            self._flush_timer = None
        elif self._flush_timer is None:
            self._flush_timer = self.loop.call_later(FLUSH_SECONDS, self._end_flush)

    def _end_flush(self) -> None:
        self._flush_timer = None
        if self.transport.get_write_buffer_size():
            note("slow_reader")
            self.evict()

    def _end_head(self) -> None:
        if not self._has_begun:
            note("silent")
            self.evict()
            return
        detail = (
            f"a request's head has to arrive within {HEAD_SECONDS:g} seconds of its first byte; send it again at once"
        )
        self.refuse(Refusal(408, "request_timeout", detail))

    def _set_timer(self, seconds: float, act: Callable[[], None]) -> None:
        self._unset_timer()
        self._timer = self.loop.call_later(seconds, act)

    def _unset_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None


def connection_class(*, crowd: Crowd[Connection], serve: Serve, request_seconds: float) -> type[Connection]:
    """A class of connections for one server."""
    return type(
        "BoundConnection",
        (Connection,),
        {"crowd": crowd, "serve": staticmethod(serve), "request_seconds": request_seconds},
    )
