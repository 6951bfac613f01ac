"""Clients that do not behave: silent, unfinished, dripping. Importable from any test; only ever pointed at loopback."""

import contextlib
import select
import socket
import time
from collections.abc import Iterator

__all__ = ["Crowd", "answer_of", "crowd", "drip", "open_socket"]

UNFINISHED_HEAD = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Ty"
UNFINISHED_BODY = b'POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{"a'
UNFINISHED_CHUNKS = b'POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"spe\r\n'


def open_socket(address: tuple[str, int], sends: bytes = b"") -> socket.socket:
    """A connection that has sent this much and waits."""
    connection = socket.create_connection(address, timeout=10)
    connection.sendall(sends)
    return connection


class Crowd:
    """Many such connections."""

    def __init__(self) -> None:
        self.members: list[socket.socket] = []

    def add(self, address: tuple[str, int], count: int, sends: bytes = b"") -> None:
        """So many more connections."""
        self.members += [open_socket(address, sends) for _ in range(count)]

    def open_count(self) -> int:
        """How many the server has not closed. Its answers are read and dropped."""
        return sum(not _is_closed(member) for member in self.members)


@contextlib.contextmanager
def crowd() -> Iterator[Crowd]:
    """Closes them all at the end."""
    made = Crowd()
    try:
        yield made
    finally:
        for member in made.members:
            member.close()


def answer_of(connection: socket.socket, seconds: float) -> bytes:
    """Everything that the server sends until it closes.

    Raises:
        TimeoutError: it has not closed in time.
    """
    connection.settimeout(seconds)
    chunks = []
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            chunks.append(chunk)
    return b"".join(chunks)


def drip(connection: socket.socket, data: bytes, *, every_seconds: float, at_most_seconds: float) -> bytes:
    """Send a byte at a time, until the server has answered and closed; returns its answer.

    Raises:
        TimeoutError: it has not closed in time.
    """
    deadline, received = time.monotonic() + at_most_seconds, b""
    for byte in data:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(bytes([byte]))
        if select.select([connection], [], [], every_seconds)[0]:
            return received + answer_of(connection, at_most_seconds)
        if time.monotonic() > deadline:
            break
    raise TimeoutError(f"still open after {at_most_seconds} s")


def _is_closed(connection: socket.socket) -> bool:
    try:
        while connection.recv(65536, socket.MSG_DONTWAIT):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
