"""Many cheap WebSocket clients in one process: they count frames and parse next to none of them."""

import asyncio
import json
import struct
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

__all__ = ["PATIENCE_SECONDS", "Client", "Crowd", "text_frame", "upgrade"]

PATIENCE_SECONDS = 60
CONNECTS_AT_ONCE = 100

UPDATE = b'{"type":"update"'
TEXT, CLOSE = 0x81, 0x88


def text_frame(payload: bytes) -> bytes:
    """A masked text frame (RFC 6455, 5.2). The mask is zero, which leaves the payload as it is."""
    length = len(payload)
    size = struct.pack("!B", 0x80 | length) if length < 126 else struct.pack("!BH", 0xFE, length)
    return bytes([TEXT]) + size + bytes(4) + payload


def upgrade(url: str) -> bytes:
    """The request that makes a connection a WebSocket."""
    address = urlsplit(url)
    return (
        f"GET {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


class Crowd:
    """The clients of one server, counted together.

    Raises:
        RuntimeError: from every method that waits, when a client was closed or refused, or nothing came for a minute.
    """

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._host, self._port = str(address.hostname), int(address.port or 80)
        self.head = upgrade(url)
        self.clients: list[Client] = []
        self.updates = 0
        self.joined = 0
        self.failure = ""
        self._slots = asyncio.Semaphore(CONNECTS_AT_ONCE)
        self._progress = asyncio.Event()

    async def connect(self, hellos: Iterable[bytes]) -> None:
        """Connect a client for each hello, and wait until each has joined its topic."""
        wanted = self.joined
        async with asyncio.TaskGroup() as tasks:
            for number, hello in enumerate(hellos):
                tasks.create_task(self._connect(number, hello))
                wanted += 1
        await self.wait(joined=wanted)

    async def wait(self, *, updates: int = 0, joined: int = 0) -> None:
        """Wait until all clients together have got so many updates, and joined so many topics."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.updates < updates or self.joined < joined:
                if self.failure:
                    raise RuntimeError(self.failure)
                self._progress.clear()
                await self._progress.wait()

    def leave(self) -> None:
        """Cut every connection."""
        for client in self.clients:
            client.leave()
        self.clients.clear()

    def noted(self, failure: str = "") -> None:
        """Something has come, or gone wrong."""
        self.failure = self.failure or failure
        self._progress.set()

    async def _connect(self, number: int, hello: bytes) -> None:
        async with self._slots:
            loop = asyncio.get_running_loop()
            _, client = await loop.create_connection(lambda: Client(self, number, hello), self._host, self._port)
            self.clients.append(client)


class Client(asyncio.Protocol):
    """One of them, by its number among the hellos. ``session`` and ``position`` are what it would come back with."""

    def __init__(self, crowd: Crowd, number: int, hello: bytes) -> None:
        self.number = number
        self._crowd = crowd
        self._hello = hello
        self._is_open = self._has_left = False
        self._rest = b""
        self._transport: Any = None
        self.session = self.position = ""

    def leave(self) -> None:
        """Cut the connection."""
        self._has_left = True
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.write(self._crowd.head)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._has_left:
            self._crowd.noted(f"a client lost its connection: {exc or 'closed'}")

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        start = 0
        if not self._is_open:
            head, end, _ = data.partition(b"\r\n\r\n")
            if end and not head.startswith(b"HTTP/1.1 101"):
                self._crowd.noted(f"a client was refused: {head.splitlines()[0].decode()}")
            elif end:
                self._is_open = True
                self._transport.write(text_frame(self._hello))
                start = len(head) + len(end)
        self._rest = data[self._take(data, start) :] if self._is_open else data
        self._crowd.noted()

    def _take(self, data: bytes, start: int) -> int:
        """Take every whole frame from ``start`` on; where the rest begins."""
        while (frame := _bounds(data, start)) is not None:
            begin, end = frame
            if data.startswith(UPDATE, begin):
                self._crowd.updates += 1
            else:
                self._read(data[start], data[begin:end])
            start = end
        return start

    def _read(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE and not self._has_left:
            self._crowd.noted(f"a client was closed: {int.from_bytes(payload[:2], 'big')} {payload[2:].decode()}")
        if opcode != TEXT:
            return
        frame = json.loads(payload)
        match frame["type"]:
            case "welcome":
                self.session = frame["session"]
            case "subscribed":
                self.position = frame.get("pos", "")
                self._crowd.joined += 1
            case "ping":
                self._transport.write(text_frame(b'{"type":"pong"}'))
            case "gap" | "error":
                self._crowd.noted(f"a client was told: {payload.decode()}")


def _bounds(data: bytes, start: int) -> tuple[int, int] | None:
    """Where the payload of the frame at ``start`` begins and ends; ``None`` while it is not all there. Under 64 KiB."""
    if len(data) < start + 4:
        return None if len(data) < start + 2 or data[start + 1] else (start + 2, start + 2)
    begin, length = start + 2, data[start + 1]
    if length == 126:
        begin, length = start + 4, int.from_bytes(data[start + 2 : start + 4], "big")
    return (begin, begin + length) if begin + length <= len(data) else None
