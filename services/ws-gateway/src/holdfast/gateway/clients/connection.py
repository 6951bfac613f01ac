"""One client's way out: a bounded queue, one writer, and one way to end it."""

import asyncio
from collections import deque
from typing import Protocol

from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Frame
from holdfast.gateway.protocol.frames import Limits, ServerFrame

__all__ = ["Connection", "Outlet"]

WRITE_BYTES = 64 * 1024
"""Most bytes joined into one write: enough to make its cost per frame vanish, and small beside the queue's own bound."""

STUCK_SECONDS = 1.0
"""How long a slow consumer has to take its close frame."""

PARTING_SECONDS = 5.0
"""How long any other client has to take what is queued, and its close frame."""


class Outlet(Protocol):
    """Where a connection's frames go: ``wire.Wire``, or ``event_stream.EventStream``."""

    def encode(self, frame: Frame) -> bytes:
        """The frame as it is written; called in the order of writing."""

    async def write(self, data: bytes) -> bool:
        """Write when there is room; ``False`` once the connection is closed."""

    def release(self) -> None:
        """Let no ``write`` wait any more."""

    async def close(self, code: CloseCode, reason: str, *, abort_after_seconds: float) -> None:
        """Close, and abort when that is not done in time."""


class Connection:
    """Outbound side of a client. Everything but :meth:`run` and :meth:`room` is called without awaiting anything.

    A client that reads too slowly fills its queue. It then loses the connection rather than frames: the queue is cleared,
    and the client resumes from its own positions without a hole. Nobody else ever waits for it.
    """

    def __init__(self, outlet: Outlet, limits: Limits) -> None:
        self._outlet = outlet
        self._limits = limits
        self._queue: deque[Frame] = deque()
        self._queued_bytes = 0
        self._has_work = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._ending: tuple[CloseCode, str] | None = None

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
        self._queued_bytes += len(frame.websocket)
        if self._queued_bytes > self._limits.queue_bytes or len(self._queue) > self._limits.queue_frames:
            self._queue.clear()
            self._queued_bytes = 0
            self.close(CloseCode.SLOW_CONSUMER, "reading too slowly; resume from your positions")
            return
        self._has_work.set()

    def close(self, code: CloseCode, reason: str) -> None:
        """End the connection after what is queued. The first reason given is the one that the client is told."""
        if self._ending is None:
            self._ending = (code, reason)
            self._has_work.set()
            self._has_room.set()
            self._outlet.release()

    async def room(self) -> bool:
        """Wait until the queue is empty, for a caller that has more to send than it holds. ``False``: the connection ends."""
        while self._queue and self._ending is None:
            self._has_room.clear()
            await self._has_room.wait()
        return self._ending is None

    async def run(self) -> None:
        """Write until the connection ends, then close it. The only task that touches the outlet."""
        while self._ending is None:
            await self._has_work.wait()
            self._has_work.clear()
            if not await self._flush():
                return
        # What is queued goes first: the reason for a refusal, or the last updates before a drain.
        await self._flush()
        code, reason = self._ending
        wait = STUCK_SECONDS if code is CloseCode.SLOW_CONSUMER else PARTING_SECONDS
        await self._outlet.close(code, reason, abort_after_seconds=wait)

    async def _flush(self) -> bool:
        """Write the queue in as few writes as possible. Frames queued within one turn of the loop leave together."""
        while self._queue:
            if not await self._outlet.write(self._take()):
                return False
        self._has_room.set()
        return True

    def _take(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while self._queue and size < WRITE_BYTES:
            frame = self._queue.popleft()
            parts.append(self._outlet.encode(frame))
            size += len(frame.websocket)
        self._queued_bytes -= size
        return b"".join(parts)
