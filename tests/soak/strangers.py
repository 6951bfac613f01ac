"""Clients that do not behave, for some seconds: at the gateway with frames, at ingest with requests that never end.

Bounded: so many connections at a time, each opened again only in the next turn after the service has closed it.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.hostile.sockets import UNFINISHED_BODY, UNFINISHED_CHUNKS, UNFINISHED_HEAD
from websockets.frames import Frame, Opcode

__all__ = ["AT_GATEWAY", "AT_INGEST", "Manner", "visit"]

EACH = 3
"""Connections of each manner at a time."""

TURN_SECONDS = 0.25

AWAIT_SECONDS = 10.0
"""For a service that is down or starting when the strangers come: at a closed door they would test nothing."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a stranger behaves: what it says first, what it says again in each turn, and whether it then stops sending.

    One that says something again never reads; the others read, and come back when the service has closed.
    """

    first: bytes
    again: bytes = b""
    is_half_closed: bool = False


def _frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=True)


UPGRADE = (
    b"GET /v1/live HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
UNFINISHED_TEXT = UPGRADE + _frame(Opcode.TEXT, b"{", fin=False)

AT_GATEWAY = (
    Manner(UNFINISHED_TEXT, _frame(Opcode.CONT, fin=False) * 2000),
    Manner(UNFINISHED_TEXT, _frame(Opcode.CONT, b" ", fin=False) * 10),
    Manner(UPGRADE, _frame(Opcode.PING, b"x" * 125) * 200),
    Manner(UPGRADE),
    Manner(UPGRADE, is_half_closed=True),
    Manner(b"GET /v1/live HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"x"),
    Manner(b"POST /v1/live/tickets HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", b"a"),
)
"""Empty parts of a message in a flood, parts without end, pings, silence, one that only listens, and unfinished requests."""

AT_INGEST = (
    Manner(b""),
    Manner(UNFINISHED_HEAD),
    Manner(UNFINISHED_HEAD, b"x"),
    Manner(UNFINISHED_HEAD, is_half_closed=True),
    Manner(UNFINISHED_BODY),
    Manner(UNFINISHED_BODY, b"a"),
    Manner(UNFINISHED_BODY, is_half_closed=True),
    Manner(UNFINISHED_CHUNKS),
)
"""Silence, and heads and bodies that are unfinished, arrive a byte at a time, or end too early."""


def visit(url: str, manners: Sequence[Manner], seconds: float) -> dict[str, int]:
    """Send these strangers to the service at ``url``; returns how many connections were opened, and were refused.

    The seconds count from the first connection, for which they wait. A connection is refused while the service is down,
    and tried again in the next turn.
    """
    place = urlsplit(url)
    address = (place.hostname or "", place.port or 0)
    strangers = [_Stranger(manner, address) for manner in manners for _ in range(EACH)]
    deadline, is_waiting = time.monotonic() + AWAIT_SECONDS, True
    with contextlib.ExitStack() as leaving:
        for stranger in strangers:
            leaving.callback(stranger.leave)
        while time.monotonic() < deadline:
            for stranger in strangers:
                stranger.take_turn()
            if is_waiting and any(stranger.opened for stranger in strangers):
                deadline, is_waiting = time.monotonic() + seconds, False
            threading.Event().wait(TURN_SECONDS)
    return {"opened": sum(each.opened for each in strangers), "refused": sum(each.refused for each in strangers)}


@dataclass(slots=True)
class _Stranger:
    manner: Manner
    address: tuple[str, int]
    opened: int = 0
    refused: int = 0
    _socket: socket.socket | None = field(default=None)

    def take_turn(self) -> None:
        """Say the next thing, as far as the service takes it; come back if it has closed."""
        try:
            if self._socket is None:
                self._come()
            elif self.manner.again:
                self._socket.send(self.manner.again)
            elif _is_closed(self._socket):
                self.leave()
        except BlockingIOError:
            pass  # the service has stopped reading
        except OSError:
            self.leave()

    def _come(self) -> None:
        try:
            self._socket = socket.create_connection(self.address, timeout=2)
        except OSError:
            self.refused += 1
            return
        self.opened += 1
        self._socket.sendall(self.manner.first)
        if self.manner.is_half_closed:
            self._socket.shutdown(socket.SHUT_WR)
        self._socket.setblocking(False)

    def leave(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _is_closed(connection: socket.socket) -> bool:
    """Whether the service has closed. Its answer is read and dropped."""
    return connection.recv(65536) == b""
