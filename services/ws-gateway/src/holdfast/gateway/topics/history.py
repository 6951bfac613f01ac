"""The last updates of a topic, kept in this process: what most clients that come back have missed."""

from collections import deque
from collections.abc import Sequence

from holdfast.domain.position import Position
from holdfast.gateway.protocol.codec import Frame

__all__ = ["History"]


class History:
    """Frames of the updates up to where the topic stands, without a hole, as many as the bounds allow."""

    def __init__(self, *, frames: int, size_bytes: int) -> None:
        self._frame_limit = frames
        self._byte_limit = size_bytes
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._end: Position | None = None

    @property
    def end(self) -> Position | None:
        """After the newest frame."""
        return self._end

    def begin(self, position: Position) -> None:
        """Forget everything; the topic stands at ``position``."""
        self._frames.clear()
        self._bytes = 0
        self._end = position

    def append(self, position: Position, frame: Frame) -> None:
        """The topic went on by one."""
        end = self._end
        if end is None or (end.epoch, end.offset + 1) != (position.epoch, position.offset):
            self.begin(position)
            return
        self._end = position
        self._frames.append(frame)
        self._bytes += len(frame.payload)
        while len(self._frames) > self._frame_limit or self._bytes > self._byte_limit:
            self._bytes -= len(self._frames.popleft().payload)

    def fill(self, since: Position, frames: Sequence[Frame]) -> None:
        """Take older updates: ``frames`` are those that follow ``since``, in the topic's order."""
        end = self._end
        if end is None or end.epoch != since.epoch:
            return
        # Only those before the first that is here, if they lead up to it.
        missing = end.offset - len(self._frames) - since.offset
        if not 0 < missing <= len(frames):
            return
        for frame in reversed(frames[:missing]):
            if len(self._frames) >= self._frame_limit or self._bytes + len(frame.payload) > self._byte_limit:
                return
            self._frames.appendleft(frame)
            self._bytes += len(frame.payload)

    def after(self, since: Position) -> list[Frame] | None:
        """The frames after ``since``; ``None`` when not all of them are here."""
        end = self._end
        if end is None or end.epoch != since.epoch:
            return None
        missed = end.offset - since.offset
        if not 0 <= missed <= len(self._frames):
            return None
        return list(self._frames)[len(self._frames) - missed :]
