"""The clients of the live benchmark count what a server sent, however it was cut into pieces."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from bench.crowd import Crowd

UPDATE = b'{"type":"update","topic":"audience:a","pos":"e:1","event":{}}'


def frame(payload: bytes, opcode: int = 0x81) -> bytes:
    """As a server sends it, unmasked."""
    size = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2, "big")
    return bytes([opcode]) + size + payload


@contextlib.contextmanager
def serving(said: bytes, *, piece_bytes: int) -> Iterator[str]:
    """A server that answers a request with this, in pieces, and then waits for its client to leave."""

    def serve() -> None:
        connection, _ = server.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, contextlib.suppress(ConnectionError):
            connection.recv(1000)
            for start in range(0, len(said), piece_bytes):
                connection.sendall(said[start : start + piece_bytes])
            while connection.recv(1000):
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"ws://127.0.0.1:{server.getsockname()[1]}/live"
        thread.join(10)


async def counted(url: str, *, updates: int) -> Crowd:
    """A client that has got so many updates, and has left."""
    crowd = Crowd(url)
    try:
        await crowd.connect([b"hello"])
        await crowd.wait(updates=updates)
    finally:
        crowd.leave()
        await asyncio.sleep(0)  # the turn in which what was cut is closed
    return crowd


@pytest.mark.parametrize("piece_bytes", [1, 3, 1000])
def test_frames_are_counted_in_whatever_pieces_they_come(piece_bytes: int) -> None:
    said = b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + frame(b'{"type":"subscribed","pos":"e:0"}')
    said += frame(UPDATE) + frame(UPDATE[:-1] + b" " * 300 + b"}") + frame(UPDATE)

    with serving(said, piece_bytes=piece_bytes) as url:
        crowd = asyncio.run(counted(url, updates=3))

    assert (crowd.updates, crowd.joined) == (3, 1)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "refused: HTTP/1.1 503"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + frame(b"\x0f\xa4busy", 0x88), "closed: 4004 busy"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + frame(b'{"type":"gap"}'), 'told: {"type":"gap"}'),
    ],
)
def test_a_client_that_is_not_served_fails_the_measurement(said: bytes, told: str) -> None:
    with serving(said, piece_bytes=1000) as url, pytest.raises(RuntimeError, match=told):
        asyncio.run(counted(url, updates=1))
