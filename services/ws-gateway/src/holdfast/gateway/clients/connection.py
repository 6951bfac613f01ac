"""One client's way out: a bounded queue that is written at the end of a turn of the loop, and one way to end it."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Frame
from holdfast.gateway.protocol.frames import Limits, ServerFrame

__all__ = ["Connection", "Outlet", "Turn"]

WRITE_BYTES = 64 * 1024
"""Most bytes joined into one write: enough to make its cost per frame vanish, and small beside the queue's own bound."""

STUCK_SECONDS = 1.0
"""How long a slow consumer has to take its close frame."""

PARTING_SECONDS = 5.0
"""How long any other client has to take what is queued, and its close frame."""


class Outlet(Protocol):
    """Where a connection's frames go: ``wire.Wire``, or ``event_stream.EventStream``. It never waits."""

    @property
    def has_room(self) -> bool:
        """Whether the client has read enough of what was written. Once it has again, ``Connection.flush`` is called."""

    @property
    def is_closed(self) -> bool:
        """Whether nothing written arrives any more."""

    def encode(self, frame: Frame) -> bytes:
        """The frame as it is written; called in the order of writing."""

    def write(self, data: bytes) -> None:
        """Write, whether there is room or not."""

    def close(self, code: CloseCode, reason: str, *, abort_after_seconds: float) -> None:
        """Close behind what was written, and abort when that is not done in time."""


class Turn:
    """Flushes the connections that got something in a turn of the event loop when it ends: one callback for all of them.

    A connection has no task of its own; waking one for each delivery would cost more than the delivery.
    """

    __slots__ = ("_due",)

    def __init__(self) -> None:
        self._due: list[Connection] = []

    def add(self, connection: "Connection") -> None:
        """Flush it once this turn is over."""
        if not self._due:
            asyncio.get_running_loop().call_soon(self._end)
        self._due.append(connection)

    def _end(self) -> None:
        due, self._due = self._due, []
        for connection in due:
            connection.flush()


class Connection:
    """Outbound side of a client. Everything but :meth:`room` is called without awaiting anything. Writes nothing before the
    first :meth:`flush`.

    A client that reads too slowly fills its queue. It then loses the connection rather than frames: the queue is cleared,
    and the client resumes from its own positions without a hole. Nobody else ever waits for it.

    Args:
        on_parted: called once, when the last frame has been written.
    """

    __slots__ = (
        "_ending", "_has_parted", "_has_room", "_is_due", "_limits", "_on_parted", "_outlet", "_queue", "_queued_bytes",
        "_turn",
    )  # fmt: skip

    def __init__(
        self, outlet: Outlet, limits: Limits, turn: Turn, *, on_parted: Callable[["Connection"], None]
    ) -> None:
        self._outlet = outlet
        self._limits = limits
        self._turn = turn
        self._on_parted = on_parted
        self._queue: list[Frame] = []
        self._queued_bytes = 0
        self._is_due = True  # with the first flush
        self._has_room: asyncio.Event | None = None
        """There while somebody waits: most connections never need one."""
        self._ending: tuple[CloseCode, str] | None = None
        self._has_parted = False

    @property
    def close_code(self) -> CloseCode | None:
        """The code of the close that was decided on here, if any."""
        return self._ending[0] if self._ending else None

    def send(self, frame: ServerFrame) -> None:
        """Queue a frame made for this client."""
        self.enqueue(Frame.of(frame))

    def enqueue(self, frame: Frame) -> None:
        """Queue a frame; when that is one too many, end the connection."""
        if self._ending is not None:
            return
        self._queue.append(frame)
        self._queued_bytes += frame.size
        if self._queued_bytes > self._limits.queue_bytes or len(self._queue) > self._limits.queue_frames:
            self._forget()
            self.close(CloseCode.SLOW_CONSUMER, "reading too slowly; resume from your positions")
        elif not self._is_due:
            self._is_due = True
            self._turn.add(self)

    def close(self, code: CloseCode, reason: str) -> None:
        """End the connection after what is queued. The first reason given is the one that the client is told."""
        if self._ending is None:
            self._ending = (code, reason)
            self._tell_waiting()
            if not self._is_due:
                self._is_due = True
                self._turn.add(self)

    async def room(self) -> bool:
        """Wait until the queue is empty, for a caller that has more to send than it holds. ``False``: the connection ends."""
        while self._queue and self._ending is None and not self._has_parted:
            if self._has_room is None:
                self._has_room = asyncio.Event()
            await self._has_room.wait()
        return self._ending is None and not self._has_parted

    def flush(self) -> None:
        """Write what is queued in as few writes as possible, as far as there is room; when it ends, all of it."""
        self._is_due = False
        outlet = self._outlet
        if self._has_parted:
            return
        if outlet.is_closed:
            self._forget()
            self._part()
            return
        while self._queue and (outlet.has_room or self._ending is not None):
            outlet.write(self._take())
        if self._queue:
            return
        self._tell_waiting()
        if self._ending is not None:
            code, reason = self._ending
            self._part()
            wait = STUCK_SECONDS if code is CloseCode.SLOW_CONSUMER else PARTING_SECONDS
            outlet.close(code, reason, abort_after_seconds=wait)

    def _take(self) -> bytes:
        queue = self._queue
        if len(queue) == 1:
            frame = queue.pop()
            self._queued_bytes = 0
            return self._outlet.encode(frame)
        count = size = 0
        for frame in queue:
            count, size = count + 1, size + frame.size
            if size >= WRITE_BYTES:
                break
        taken = queue[:count]
        del queue[:count]
        self._queued_bytes -= size
        return b"".join(map(self._outlet.encode, taken))

    def _forget(self) -> None:
        self._queue.clear()
        self._queued_bytes = 0

    def _part(self) -> None:
        self._has_parted = True
        self._tell_waiting()
        self._on_parted(self)

    def _tell_waiting(self) -> None:
        if self._has_room is not None:
            self._has_room.set()
            self._has_room = None
