"""From bytes to whole requests: llhttp reads them, and what it is too lenient for is refused here.

llhttp is the parser of Node.js; none of its lenient flags is set. RFC 9112 is what "HTTP/1.1" means here.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser

from holdfast.ingest.edge.refusal import Refusal
from holdfast.ingest.intake.cloudevents import BATCH, media_type

__all__ = ["MAX_HEAD_BYTES", "MAX_WAITING", "REQUEST_BYTES", "Limits", "Reader", "Request"]

MAX_HEAD_BYTES = 64 * 1024
"""Request line and headers together; more are answered with 431. Trailers and what surrounds chunks have as much."""

MAX_WAITING = 64
"""Whole requests of one connection that wait for the answers of those before them (pipelining)."""

REQUEST_BYTES = 2048
"""What a request weighs beside its body, about."""

_LENGTH_DIGITS = 20

Words = tuple[int, str, str]
"""Status, code and detail of a refusal. Exceptions are made when they are raised: one that is kept collects tracebacks."""

_NOT_HTTP: Words = (
    400,
    "bad_request",
    "this is not HTTP/1.1 as RFC 9112 has it; look at the request line, the headers and the framing of the body",
)
_HEAD_TOO_LARGE: Words = (
    431,
    "head_too_large",
    f"the request line and the headers have at most {MAX_HEAD_BYTES} bytes together; send fewer or shorter ones",
)
_UNKNOWN_CODING: Words = (
    501,
    "unsupported_transfer_coding",
    "the only transfer coding is chunked; send the body with it or with Content-Length",
)
_TWO_FRAMINGS: Words = (
    400,
    "bad_request",
    "send Content-Length or Transfer-Encoding, not both, and the latter in HTTP/1.1 only",
)
_NO_MEMORY: Words = (503, "overloaded", "too many requests are in memory; send the request again after Retry-After")
_TOO_MANY: Words = (
    503,
    "overloaded",
    f"at most {MAX_WAITING} requests wait on one connection; send the others after their answers",
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes that bodies may have: of an event, and of a batch."""

    event_bytes: int
    batch_bytes: int


class Request:
    """A request whose head is complete."""

    __slots__ = (
        "body",
        "fields",
        "headers",
        "is_whole",
        "keep_alive",
        "most",
        "path",
        "query",
        "size",
        "verb",
        "version",
    )

    def __init__(self, verb: bytes, target: bytes, version: str, headers: list[tuple[bytes, bytes]]) -> None:
        self.verb = verb
        self.path, _, self.query = target.partition(b"?")
        """As sent: percent-encoded, a whole address perhaps."""
        self.version = version
        self.headers = headers
        """Names are in lower case."""
        self.fields = dict(headers)
        self.body: bytes | bytearray = b""
        """Of one that is longer than ``most`` that many bytes, which is one more than is allowed."""
        self.size = 0
        """Bytes of the body that arrived, those that were dropped included."""
        self.most = 0
        self.is_whole = False
        """Whether all of the body has arrived; what is left of it would be read as the next request."""
        self.keep_alive = False

    @property
    def weight(self) -> int:
        """Bytes in memory, about."""
        return len(self.body) + REQUEST_BYTES

    @property
    def is_too_long(self) -> bool:
        """Whether more has arrived than is kept."""
        return self.size > len(self.body)

    @property
    def is_announced_too_long(self) -> bool:
        """Whether it says itself that it will be."""
        return int(self.fields.get(b"content-length", b"0")) >= self.most

    @property
    def waits_for_continue(self) -> bool:
        """Whether the client sends its body only when it is told to (RFC 9110 section 10.1.1)."""
        expects = self.fields.get(b"expect", b"").lower() == b"100-continue"
        return expects and self.version == "1.1" and not self.size


class Reader:
    """Reads one connection. ``whole`` has the requests that are complete, ``request`` the one whose body arrives.

    Args:
        keep: told of bytes that are kept; ``False`` when there are too many.
    """

    def __init__(self, limits: Limits, keep: Callable[[int], bool]) -> None:
        self.whole: deque[Request] = deque()
        self.request: Request | None = None
        self.has_begun = False
        """Bytes of a request have arrived that is not whole."""
        self.has_ended = False
        """No request is read any more; bytes that arrive are dropped."""
        self._limits = limits
        self._keep = keep
        self._parser = HttpRequestParser(self)
        self._data = memoryview(b"")
        self._head = b""
        self._head_bytes = 0
        self._is_at_start = True
        self._searched = 0
        """Bytes of what arrived that belong to requests before."""
        self._framing = b""
        """The head of a body that the parser has to be told of once more."""
        self._between = 0
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._words = _NOT_HTTP

    def feed(self, data: memoryview) -> None:
        """Read what has arrived.

        Raises:
            Refusal: the request that arrives is not taken, nor is anything behind it. Those in ``whole`` are good.
        """
        if self.has_ended:
            return
        if not self.has_begun and data[0] in b"\r\n":  # llhttp would skip any number of them
            self._end(_NOT_HTTP)
        had, size = len(self.whole), self.request.size if self.request else 0
        self._is_at_start = not self.has_begun
        self._parse(data)
        if self.has_begun:
            self._bound(data, len(self.whole) > had, size)

    def cut(self, request: Request) -> Request:
        """Take the request whose body arrives as it is: too long, so that the rest need not be read."""
        if not request.size:
            request.body = bytes(request.most)
            self._keep(request.most)
        self.request, self.has_begun, self.has_ended = None, False, True
        request.keep_alive = False
        return request

    def _parse(self, data: memoryview) -> None:
        self._data, self._searched = data, 0
        try:
            while data:
                try:
                    self._parser.feed_data(data)
                    break
                except HttpParserUpgrade as exc:  # there is nothing to upgrade to: RFC 9110 lets a server go on
                    data = self._data = data[exc.args[0] :]
                    self._searched = 0
                    self._read_body_of_upgrade()
        except HttpParserCallbackError:
            if not self.has_ended:
                self._end(self._words)
        except HttpParserError:
            if not self.has_ended:
                self._end(_NOT_HTTP)
        finally:
            self._data = memoryview(b"")

    def _read_body_of_upgrade(self) -> None:
        """httptools takes what is behind the head of an upgrade for another protocol, but it is this request's body."""
        if self._framing:
            framing, self._framing = self._framing, b""
            self._parser = HttpRequestParser(self)
            self._parser.feed_data(b"POST / HTTP/1.1\r\n" + framing)

    def _bound(self, data: memoryview, has_completed: bool, size: int) -> None:
        """Limit what is neither whole nor a body: heads, trailers, and what is between chunks."""
        if self.request is None:
            if not has_completed:
                self._head_bytes += len(data)
            self._head += data[self._searched :]
            if self._head_bytes > MAX_HEAD_BYTES:
                self._end(_HEAD_TOO_LARGE)
            return
        self._between = 0 if self.request.size > size else self._between + len(data)
        if self._between > MAX_HEAD_BYTES:
            self._end(_HEAD_TOO_LARGE)

    def _end(self, words: Words) -> NoReturn:
        self.has_ended = True
        raise Refusal(*words)

    def _refuse(self, words: Words) -> NoReturn:
        """Within a callback: the parser stops, and tells only that it did."""
        self._words = words
        raise Refusal(*words)

    # What llhttp calls.

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self.has_ended:
            raise Refusal(*_NOT_HTTP)
        if len(self.whole) >= MAX_WAITING:
            self._refuse(_TOO_MANY)
        self.has_begun = True
        self._target, self._headers, self._head, self._head_bytes, self._between = b"", [], b"", 0, 0

    def on_url(self, target: bytes) -> None:
        """A piece of the request's target."""
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, for which there is no use."""
        if self.request is None:
            self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if self.request is not None:
            return  # it has been told of before
        parser = self._parser
        request = Request(parser.get_method(), self._target, parser.get_http_version(), self._headers)
        self._check_line(request)
        self._check_host(request)
        fields = request.fields
        if b"transfer-encoding" in fields:
            self._check_coding(request)
        elif len(fields.get(b"content-length", b"")) > _LENGTH_DIGITS:
            self._refuse(_NOT_HTTP)
        is_batch = media_type(fields.get(b"content-type", b"").decode("latin-1")) == BATCH
        request.most = 1 + (self._limits.batch_bytes if is_batch else self._limits.event_bytes)
        request.keep_alive = parser.should_keep_alive() and request.version == "1.1" and request.verb != b"CONNECT"
        if not self._keep(REQUEST_BYTES):
            self._keep(-REQUEST_BYTES)
            self._refuse(_NO_MEMORY)
        self.request, self._head = request, b""
        if parser.should_upgrade() and request.keep_alive:
            self._framing = _framing(fields)

    def on_body(self, piece: bytes) -> None:
        """A piece of the body."""
        request = self.request
        if request is None:
            return
        request.size += len(piece)
        kept = piece[: request.most - len(request.body)]
        if not request.body:
            request.body = kept
        else:
            if isinstance(request.body, bytes):
                request.body = bytearray(request.body)
            request.body += kept
        if not self._keep(len(kept)):
            self._refuse(_NO_MEMORY)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._framing:
            return
        request, self.request = self.request, None
        self.has_begun = self._is_at_start = False
        if request is not None:
            request.is_whole = True
            self.has_ended = not request.keep_alive
            self.whole.append(request)

    def _check_line(self, request: Request) -> None:
        """The request line has to be exactly this: llhttp also takes several spaces, HTTP/0.9, RTSP and ICE."""
        line = b"%b %b HTTP/%b\r\n" % (request.verb, self._target, request.version.encode())
        if request.version not in ("1.1", "1.0"):
            self._refuse(_NOT_HTTP)
        if self._is_at_start:
            is_exact = self._data[: len(line)] == line
            self._searched = len(line)
        else:  # begun earlier, or behind another request
            found = (self._head + self._data[self._searched :]).find(line)
            is_exact = found >= 0
            self._searched = max(0, self._searched + found + len(line) - len(self._head))
        if not is_exact:
            self._refuse(_NOT_HTTP)

    def _check_host(self, request: Request) -> None:
        """RFC 9112 section 3.2: exactly one, which HTTP/1.0 may leave out."""
        is_missing = b"host" not in request.fields and request.version == "1.1"
        is_repeated = len(request.fields) < len(request.headers) and sum(n == b"host" for n, _ in request.headers) > 1
        if is_missing or is_repeated:
            self._refuse(_NOT_HTTP)

    def _check_coding(self, request: Request) -> None:
        """Refuse what two servers may read as two different requests (request smuggling, RFC 9112 section 6.3)."""
        if request.version != "1.1" or b"content-length" in request.fields:
            self._refuse(_TWO_FRAMINGS)
        codings = [value for name, value in request.headers if name == b"transfer-encoding"]
        if [coding.lower() for coding in codings] != [b"chunked"]:
            self._refuse(_UNKNOWN_CODING)


def _framing(fields: dict[bytes, bytes]) -> bytes:
    """The end of a head that announces the same body; nothing where there is none."""
    if b"transfer-encoding" in fields:
        return b"Transfer-Encoding: chunked\r\n\r\n"
    length = int(fields.get(b"content-length", b"0"))
    return b"Content-Length: %d\r\n\r\n" % length if length else b""
