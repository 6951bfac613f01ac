"""Load on ``POST /v1/events``: keep-alive connections, each sending one event after the other.

It shares the cores with what it measures, so it is as cheap as it can be: one thread, sockets, requests that are built
beforehand but for the events' ids, and a reader that looks for no more than it needs.
"""

import json
import multiprocessing
import re
import selectors
import socket
import time
from urllib.parse import urlsplit
from uuid import uuid4

from holdfast.local.stack import Stack

__all__ = ["load", "measure"]

CONNECTIONS = 32
"""All in one process, whose single thread is far from busy."""

BATCH_CONNECTIONS = 8
"""The same for batches, which keep a server busier."""

PATIENCE_SECONDS = 10.0

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_REPEATED = re.compile(rb'"duplicates?": *(true|[1-9])')


def measure(stack: Stack, *, seconds: float, batch: int = 1) -> float:
    """Accepted events a second over ``seconds``, one a request, or ``batch`` of them.

    Raises:
        RuntimeError: an event was not accepted.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        count = pool.apply(load, (stack.ingest_url, stack.api_key, seconds, batch))
    return count / seconds


def load(url: str, api_key: str, seconds: float, batch: int = 1) -> int:
    """Send until ``seconds`` are over; returns how many new events were accepted.

    Raises:
        RuntimeError: an answer was not 202, was none, or said that an event is not new.
    """
    address = urlsplit(url)
    sender = _Sender(address.netloc, api_key, batch)
    connections = CONNECTIONS if batch == 1 else BATCH_CONNECTIONS
    with selectors.DefaultSelector() as selector:
        for _ in range(connections):
            connection = socket.create_connection(
                (address.hostname or "", address.port or 80), timeout=PATIENCE_SECONDS
            )
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(connection, selectors.EVENT_READ, _Reader())
            connection.sendall(sender.request())
        try:
            return _answers(selector, sender, time.monotonic() + seconds) * batch
        finally:
            for key in list(selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]


class _Sender:
    """Writes requests. Everything but the ids is the same in all of them."""

    def __init__(self, host: str, api_key: str, batch: int) -> None:
        self._prefix = uuid4().hex[:20]
        self._sent = 0
        mark = "-" * 32
        event = {
            "specversion": "1.0", "id": mark, "source": "/bench", "type": "bench.ingest", "audience": "bench",
            "data": {"text": "x" * 400},
        }  # fmt: skip
        body = json.dumps(event if batch == 1 else [event] * batch)
        kind = "application/cloudevents+json" if batch == 1 else "application/cloudevents-batch+json"
        head = (
            f"POST /v1/events HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {api_key}\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._parts = (head + body).encode().split(mark.encode())

    def request(self) -> bytes:
        """The next request, with ids that no other has."""
        written = [self._parts[0]]
        for part in self._parts[1:]:
            self._sent += 1
            written += [b"%s%012x" % (self._prefix.encode(), self._sent), part]
        return b"".join(written)


class _Reader:
    """What has come of one answer."""

    def __init__(self) -> None:
        self._received = b""

    def is_whole_with(self, data: bytes) -> bool:
        """Whether the answer is complete now.

        Raises:
            RuntimeError: it is not what was asked for.
        """
        received = self._received = self._received + data
        if not data or not b"HTTP/1.1 202 ".startswith(received[:13]):
            raise RuntimeError(f"not accepted: {received[:600]!r}")
        end = received.find(b"\r\n\r\n")
        length = _LENGTH.search(received, 0, end + 2)
        if end < 0 or length is None or len(received) < end + 4 + int(length[1]):
            return False
        if _REPEATED.search(received, end):
            raise RuntimeError(f"an id was used before: {received[end:][:200]!r}")
        self._received = b""
        return True


def _answers(selector: selectors.BaseSelector, sender: _Sender, deadline: float) -> int:
    """How many came, each of them followed by the next request until the deadline."""
    answers, waiting = 0, len(selector.get_map())
    while waiting:
        ready = selector.select(PATIENCE_SECONDS)
        if not ready:
            raise RuntimeError(f"no answer within {PATIENCE_SECONDS:g} s")
        is_over = time.monotonic() >= deadline
        for key, _ in ready:
            connection: socket.socket = key.fileobj  # type: ignore[assignment]
            if not key.data.is_whole_with(connection.recv(262_144)):
                continue
            answers += 1
            waiting -= is_over
            if not is_over:
                connection.sendall(sender.request())
    return answers
