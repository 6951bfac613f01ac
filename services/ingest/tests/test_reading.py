"""Requests as bytes: which are taken, which are refused, and that it does not matter in which pieces they arrive.

What h11 refused, which read requests before, is refused as well; where llhttp is stricter the strict answer counts.
"""

import pytest

from holdfast.ingest.edge.reading import MAX_HEAD_BYTES, MAX_WAITING, Limits, Reader, Request
from holdfast.ingest.edge.refusal import Refusal

HOST = b"Host: x\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"


def with_header(*lines: bytes, verb: bytes = b"POST", version: bytes = b"1.1") -> bytes:
    head = [verb + b" / HTTP/" + version, b"Host: x", *lines]
    return b"\r\n".join(head) + b"\r\n\r\n"


REFUSED = {
    "two framings": with_header(b"Content-Length: 3", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "two framings, the other way round": with_header(b"Transfer-Encoding: chunked", b"Content-Length: 3") + b"0\r\n\r\n",
    "chunked in HTTP/1.0": with_header(b"Transfer-Encoding: chunked", version=b"1.0") + b"0\r\n\r\n",
    "two lengths": with_header(b"Content-Length: 3", b"Content-Length: 4") + b"abcd",
    "a length twice": with_header(b"Content-Length: 3", b"Content-Length: 3") + b"abc",
    "a list of lengths": with_header(b"Content-Length: 3, 3") + b"abc",
    "a length with a sign": with_header(b"Content-Length: +3") + b"abc",
    "a negative length": with_header(b"Content-Length: -3") + b"abc",
    "an empty length": with_header(b"Content-Length: ") + b"abc",
    "a hexadecimal length": with_header(b"Content-Length: 0x3") + b"abc",
    "a length with a space": with_header(b"Content-Length: 3 3") + b"abc",
    "a length beyond 64 bits": with_header(b"Content-Length: 99999999999999999999999") + b"abc",
    "a length with many zeros": with_header(b"Content-Length: 000000000000000000003") + b"abc",
    "chunked twice": with_header(b"Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n",
    "chunked in two headers": with_header(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "chunked, then another": with_header(b"Transfer-Encoding: chunked, gzip") + b"0\r\n\r\n",
    "an empty coding": with_header(b"Transfer-Encoding: ") + b"0\r\n\r\n",
    "a coding behind a vertical tab": with_header(b"Transfer-Encoding: \x0bchunked") + b"0\r\n\r\n",
    "a folded coding": with_header(b"Transfer-Encoding:\r\n chunked") + b"0\r\n\r\n",
    "a folded header": with_header(b"A: b\r\n c"),
    "a folded header with a tab": with_header(b"A: b\r\n\tc"),
    "a first header with a space": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "a space before the colon": with_header(b"Content-Length : 3") + b"abc",
    "no colon": with_header(b"A"),
    "no name": with_header(b": a"),
    "a control character in a name": with_header(b"A\x01: a"),
    "NUL in a value": with_header(b"A: \x00"),
    "a control character in a value": with_header(b"A: \x01"),
    "a lone CR in a value": with_header(b"A: b\rContent-Length: 3") + b"abc",
    "LF without CR": b"GET / HTTP/1.1\nHost: x\n\n",
    "LF without CR behind a header": b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
    "LF without CR behind the head": b"GET / HTTP/1.1\r\nHost: x\r\n\n",
    "an empty line before the request": b"\r\n" + GET,
    "LF before the request": b"\n" + GET,
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
    "two spaces before the target": b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n",
    "two spaces behind the target": b"GET /  HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",
    "a tab in the target": b"GET /a\tb HTTP/1.1\r\n" + HOST + b"\r\n",
    "no ASCII in the target": b"GET /\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target without slash": b"GET livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "no version": b"GET /\r\n\r\n",
    "HTTP/0.9": b"GET / HTTP/0.9\r\n" + HOST + b"\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\n" + HOST + b"\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\n" + HOST + b"\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http in lower case": b"GET / http/1.1\r\n" + HOST + b"\r\n",
    "RTSP": b"GET / RTSP/1.0\r\n" + HOST + b"\r\n",
    "ICE": b"SOURCE / ICE/1.0\r\n" + HOST + b"\r\n",
    "no method": b"FOO / HTTP/1.1\r\n" + HOST + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "a chunk size of letters": CHUNKED + b"zz\r\n",
    "a chunk size with a sign": CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n",
    "a negative chunk size": CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n",
    "a chunk size in C": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk size with a space": CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
    "a chunk size beyond 64 bits": CHUNKED + b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "a chunk longer than said": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
    "a chunk without its end": CHUNKED + b"3\r\nabc0\r\n\r\n",
    "LF without CR behind a chunk size": CHUNKED + b"3\nabc\r\n0\r\n\r\n",
    "LF without CR behind a chunk extension": CHUNKED + b"3;a\nabc\r\n0\r\n\r\n",
    "a trailer that is none": CHUNKED + b"3\r\nabc\r\n0\r\nA b\r\n\r\n",
    "a length in a trailer": CHUNKED + b"3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n",
}  # fmt: skip

UNKNOWN_CODINGS = {
    "gzip": with_header(b"Transfer-Encoding: gzip"),
    "gzip, then chunked": with_header(b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
    "two headers": with_header(b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "nearly chunked": with_header(b"Transfer-Encoding: xchunked") + b"0\r\n\r\n",
}

TAKEN = {
    "no body": (GET, [(b"GET", b"/", b"")]),
    "a length": (with_header(b"Content-Length: 3") + b"abc", [(b"POST", b"/", b"abc")]),
    "a length and a space": (with_header(b"Content-Length: 3 ") + b"abc", [(b"POST", b"/", b"abc")]),
    "chunks": (CHUNKED + b"3\r\nabc\r\n2;a=b\r\nde\r\n0\r\n\r\n", [(b"POST", b"/", b"abcde")]),
    "chunks and a trailer": (CHUNKED + b"3\r\nabc\r\n0\r\nHost: y\r\n\r\n", [(b"POST", b"/", b"abc")]),
    "CHUNKED": (with_header(b"Transfer-Encoding: CHUNKED") + b"1\r\na\r\n0\r\n\r\n", [(b"POST", b"/", b"a")]),
    "empty headers": (with_header(b"A:", b"B: ", verb=b"GET"), [(b"GET", b"/", b"")]),
    "HTTP/1.0 without host": (b"GET / HTTP/1.0\r\n\r\n", [(b"GET", b"/", b"")]),
    "a whole address": (b"GET http://x/y?z HTTP/1.1\r\n" + HOST + b"\r\n", [(b"GET", b"http://x/y", b"")]),
    "one behind the other": (
        with_header(b"Content-Length: 3") + b"abc" + GET + CHUNKED + b"1\r\nd\r\n0\r\n\r\n" + GET,
        [(b"POST", b"/", b"abc"), (b"GET", b"/", b""), (b"POST", b"/", b"d"), (b"GET", b"/", b"")],
    ),
    "nothing behind the last": (with_header(b"Connection: close", verb=b"GET") + GET + b"\x00", [(b"GET", b"/", b"")]),
    "nothing behind one in HTTP/1.0": (
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + GET, [(b"GET", b"/", b"")],
    ),
    "an upgrade to nothing": (
        with_header(b"Connection: upgrade", b"Upgrade: h2c", verb=b"GET") + GET, [(b"GET", b"/", b"")] * 2,
    ),
    "an upgrade to nothing, with a body": (
        with_header(b"Connection: upgrade", b"Upgrade: h2c", b"Content-Length: 3") + b"abc" + GET,
        [(b"POST", b"/", b"abc"), (b"GET", b"/", b"")],
    ),
    "an upgrade to nothing, with chunks": (
        with_header(b"Connection: upgrade", b"Upgrade: h2c", b"Transfer-Encoding: chunked")
        + b"3\r\nabc\r\n0\r\n\r\n" + GET,
        [(b"POST", b"/", b"abc"), (b"GET", b"/", b"")],
    ),
}  # fmt: skip


class Memory:
    """Counts the bytes that are kept."""

    def __init__(self, most: int = 1 << 30) -> None:
        self.kept = 0
        self.most = most

    def keep(self, count: int) -> bool:
        self.kept += count
        return self.kept <= self.most


def a_reader(memory: Memory | None = None) -> Reader:
    return Reader(Limits(event_bytes=10, batch_bytes=100), (memory or Memory()).keep)


def read(*pieces: bytes, reader: Reader | None = None) -> tuple[list[Request], str]:
    """The requests that are whole, and the code of a refusal behind them."""
    reader = reader or a_reader()
    try:
        for piece in pieces:
            reader.feed(memoryview(piece))
    except Refusal as refusal:
        return list(reader.whole), refusal.code
    return list(reader.whole), ""


def in_two(data: bytes) -> list[tuple[bytes, bytes]]:
    return [(data[:cut], data[cut:]) for cut in range(1, len(data))]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_http_is_refused_in_whatever_pieces_it_arrives(name: str) -> None:
    sent = REFUSED[name]
    pieces = [(sent,), *in_two(sent), tuple(bytes([byte]) for byte in sent)]
    assert {(len(whole), code) for whole, code in (read(*each) for each in pieces)} == {(0, "bad_request")}


@pytest.mark.parametrize("name", UNKNOWN_CODINGS)
def test_an_unknown_coding_is_refused_as_such(name: str) -> None:
    assert read(UNKNOWN_CODINGS[name]) == ([], "unsupported_transfer_coding")


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_before_a_broken_one_is_taken(name: str) -> None:
    sent = REFUSED[name]
    if sent[:1] in b"\r\n":
        pytest.skip("between two requests that arrive together an empty line is let pass")
    [first], code = read(GET + sent)
    assert (first.verb, code) == (b"GET", "bad_request")


@pytest.mark.parametrize("name", TAKEN)
def test_requests_are_read_whole_in_whatever_pieces_they_arrive(name: str) -> None:
    sent, expected = TAKEN[name]
    for pieces in [(sent,), *in_two(sent), tuple(bytes([byte]) for byte in sent)]:
        whole, code = read(*pieces)
        assert code == ""
        assert [(each.verb, each.path, bytes(each.body)) for each in whole] == expected


def test_headers_are_told_in_lower_case_and_trailers_are_not() -> None:
    [request], _ = read(CHUNKED[:-2] + b"X-A:  b \r\nx-a: c\r\n\r\n0\r\nX-A: trailer\r\n\r\n")

    assert [value for name, value in request.headers if name == b"x-a"] == [b"b", b"c"]


ENDLESS = {
    "a target": b"GET /" + b"a" * 200_000,
    "a header": b"GET / HTTP/1.1\r\nX-A: " + b"a" * 200_000,
    "headers": b"GET / HTTP/1.1\r\n" + b"X-A: a\r\n" * 20_000,
    "a chunk extension": CHUNKED + b"1;" + b"a" * 200_000,
    "a trailer": CHUNKED + b"1\r\na\r\n0\r\nX-A: " + b"a" * 200_000,
    "trailers": CHUNKED + b"1\r\na\r\n0\r\n" + b"X-A: a\r\n" * 20_000,
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_surrounds_bodies_is_bounded(name: str) -> None:
    pieces = [ENDLESS[name][start : start + 4096] for start in range(0, MAX_HEAD_BYTES + 8192, 4096)]
    assert read(*pieces) == ([], "head_too_large")


def test_a_long_body_in_small_chunks_is_no_long_head() -> None:
    whole, code = read(CHUNKED, *[b"1\r\na\r\n"] * 20_000, b"0\r\n\r\n")
    assert (len(whole), code) == (1, "")


def test_of_a_body_that_is_too_long_one_byte_more_than_allowed_is_kept() -> None:
    memory = Memory()
    [request], _ = read(with_header(b"Content-Length: 50"), b"a" * 20, b"b" * 30, reader=a_reader(memory))

    assert (request.body, request.size, request.is_too_long) == (b"a" * 11, 50, True)
    assert memory.kept == request.weight


def test_a_batch_may_be_longer_than_an_event() -> None:
    kind = b"Content-Type: application/CloudEvents-batch+json; charset=utf-8"
    [request], _ = read(with_header(kind, b"Content-Length: 50"), b"a" * 50)

    assert (len(request.body), request.is_too_long) == (50, False)


def test_a_body_that_finds_no_memory_is_refused() -> None:
    assert read(with_header(b"Content-Length: 9"), b"abc", reader=a_reader(Memory(2050))) == ([], "overloaded")
    assert read(GET, reader=a_reader(Memory(2000))) == ([], "overloaded")


def test_requests_that_wait_on_one_connection_are_bounded() -> None:
    whole, code = read(GET * (MAX_WAITING + 5))
    assert (len(whole), code) == (MAX_WAITING, "overloaded")
