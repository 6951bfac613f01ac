"""A TCP proxy on loopback that can be told to misbehave: the network between a service and its server.

It knows no protocol. A *request* is what the client sends, a *reply* is all that the server sends until the client's next
request. A trap waits for bytes to pass in a given order on one connection, so that a process can be stopped at an exact
place (between a commit and what follows it, say) without a hook in its code.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import NamedTuple, Self

__all__ = ["REPLY", "REQUEST", "Direction", "Proxy", "Step", "Trap"]

CHUNK_BYTES = 65_536


class Direction(Enum):
    """Which way bytes go."""

    REQUEST = "request"
    REPLY = "reply"


REQUEST, REPLY = Direction.REQUEST, Direction.REPLY


class Step(NamedTuple):
    """Bytes that have to pass in one direction."""

    direction: Direction
    pattern: bytes


class Trap:
    """What to do, once, on the first connection on which all steps have happened in their order."""

    def __init__(self, steps: Sequence[Step], *, is_dropping: bool, skip: int = 0) -> None:
        self.steps = steps
        self.is_dropping = is_dropping
        self._left = skip
        self._sprung = threading.Event()

    @property
    def is_sprung(self) -> bool:
        """Whether it has happened."""
        return self._sprung.is_set()

    def spring(self) -> bool:
        """Whether this time is the one. Not to be asked again then: one connection is told so."""
        self._left -= 1
        if self._left < 0:
            self._sprung.set()
        return self.is_sprung


class Proxy:
    """Forwards every connection to ``port`` on loopback; ``proxy.port`` is where clients connect."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._lock = threading.RLock()
        self._connections: list[_Connection] = []
        self._traps: list[Trap] = []
        self._lost: set[Direction] = set()
        self._is_stalled = False
        self._is_refusing = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name=f"proxy-{self.port}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Closing a socket does not wake a thread that waits in accept() on it; shutting it down does.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self.close_connections()

    def stall(self) -> None:
        """Keep back whatever is sent, both ways and on new connections too, until :meth:`resume`."""
        with self._lock:
            self._is_stalled = True
            for connection in self._connections:
                connection.stall(REQUEST, REPLY)

    def resume(self) -> None:
        """Deliver what was kept back by a stall or a trap, and forward again."""
        with self._lock:
            self._is_stalled = False
            for connection in self._connections:
                connection.resume()

    def stall_at(self, *steps: Step) -> Trap:
        """When these steps have happened on a connection, keep back the bytes of the last one and all that follow them in
        their direction.
        """
        return self._set(Trap(steps, is_dropping=False))

    def drop_reply(self, *steps: Step, skip: int = 0) -> Trap:
        """Lose one reply: that with the last step, or the next one at all. ``skip`` lets so many of them pass first."""
        return self._set(Trap(steps or [Step(REPLY, b"")], is_dropping=True, skip=skip))

    def half_open(self, lost: Direction) -> None:
        """From now on lose what is sent one way, and close nothing: to both ends the connection looks alive."""
        with self._lock:
            self._lost.add(lost)

    def refuse(self) -> None:
        """Answer new connections with a reset. Those that are open stay."""
        with self._lock:
            self._is_refusing = True

    def accept(self) -> None:
        """Forward again, on new connections too; ends :meth:`refuse` and :meth:`half_open`."""
        with self._lock:
            self._is_refusing = False
            self._lost.clear()

    def close_connections(self) -> None:
        """Close every connection at both ends."""
        with self._lock:
            closing, self._connections = self._connections, []
        for connection in closing:
            connection.close()

    def judge(self, connection: "_Connection", direction: Direction, data: bytes) -> None:
        """Pass on, keep back or lose what has come."""
        with self._lock:
            if direction in self._lost:
                return
            is_new_reply = connection.note(direction)
            for trap in self._traps:
                if trap.is_sprung or not connection.advance(trap, direction, data, is_new_reply=is_new_reply):
                    continue
                if trap.spring():
                    connection.punish(trap, direction)
        # Outside the lock: a peer that does not read holds up its own connection only.
        connection.forward(direction, data)

    def forget(self, connection: "_Connection") -> None:
        """It has ended."""
        with self._lock, contextlib.suppress(ValueError):
            self._connections.remove(connection)

    def _set(self, trap: Trap) -> Trap:
        with self._lock:
            self._traps.append(trap)
        return trap

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._is_refusing:
                    _reset(client)
                else:
                    self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
        except OSError:
            _reset(client)  # nobody listens there either
            return
        server.settimeout(None)
        connection = _Connection(self, client, server)
        if self._is_stalled:
            connection.stall(REQUEST, REPLY)
        self._connections.append(connection)
        connection.start()


class _Connection:
    """Two sockets and a thread for each direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._ends = {REQUEST: (client, server), REPLY: (server, client)}
        self._kept: dict[Direction, bytes] = {REQUEST: b"", REPLY: b""}
        self._stalled: set[Direction] = set()
        self._turns = {REQUEST: threading.Lock(), REPLY: threading.Lock()}
        self._is_dropping = False
        self._last = REQUEST
        self._progress: dict[Trap, tuple[int, bytes]] = {}
        self._threads = [
            threading.Thread(target=self._pump, args=[direction], name=f"proxy-{direction.value}", daemon=True)
            for direction in Direction
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stall(self, *directions: Direction) -> None:
        self._stalled.update(directions)

    def resume(self) -> None:
        for direction in Direction:
            with self._turns[direction]:
                self._stalled.discard(direction)
                kept, self._kept[direction] = self._kept[direction], b""
                self._send(direction, kept)

    def note(self, direction: Direction) -> bool:
        """Keep account of whose turn it is; whether a reply begins."""
        is_new_reply = direction is REPLY and self._last is REQUEST
        self._last = direction
        if direction is REQUEST:
            self._is_dropping = False
        return is_new_reply

    def advance(self, trap: Trap, direction: Direction, data: bytes, *, is_new_reply: bool) -> bool:
        """Follow a trap's steps; whether the last one has just happened. Bytes split over two reads are found too."""
        done, seen = self._progress.get(trap, (0, b""))
        rest = data
        while done < len(trap.steps) and trap.steps[done].direction is direction:
            pattern = trap.steps[done].pattern
            if not pattern:  # any reply
                return is_new_reply
            seen += rest
            at = seen.find(pattern)
            if at < 0:
                seen = seen[-len(pattern) :]
                break
            done, rest, seen = done + 1, seen[at + len(pattern) :], b""
        is_done = done == len(trap.steps)
        self._progress[trap] = (0, b"") if is_done else (done, seen)
        return is_done

    def punish(self, trap: Trap, direction: Direction) -> None:
        if trap.is_dropping:
            self._is_dropping = True
        else:
            self._stalled.add(direction)

    def forward(self, direction: Direction, data: bytes) -> None:
        if direction is REPLY and self._is_dropping:
            return
        with self._turns[direction]:
            if direction in self._stalled:
                self._kept[direction] += data
            else:
                self._send(direction, data)

    def close(self) -> None:
        self._shut()
        for thread in self._threads:
            thread.join()

    def _send(self, direction: Direction, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._ends[direction][1].sendall(data)

    def _pump(self, direction: Direction) -> None:
        """Read until either end is closed. Also while stalled: the end of a killed client gets through at once."""
        for data in self._read(direction):
            self._proxy.judge(self, direction, data)
        self._shut()
        self._proxy.forget(self)
        self._ends[direction][0].close()

    def _read(self, direction: Direction) -> Iterator[bytes]:
        with contextlib.suppress(OSError):
            while data := self._ends[direction][0].recv(CHUNK_BYTES):
                yield data

    def _shut(self) -> None:
        for end in self._ends[REQUEST]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _reset(client: socket.socket) -> None:
    """Close so that the peer gets a reset, as from a port where nobody listens."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    client.close()
