"""What a client missed in a topic, read from Redis once for all who ask at the same time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from holdfast.domain.errors import LiveWindowUnavailable
from holdfast.domain.position import GapReason, Position, can_resume
from holdfast.gateway.protocol.codec import Frame
from holdfast.gateway.topics.feed import shortfall
from holdfast.gateway.topics.history import History
from holdfast.messaging.live import TopicReading

__all__ = ["Replay", "Replays"]


class Replay(NamedTuple):
    """``frames`` lead to ``position`` without a hole; with a ``reason`` there are none, and it is a gap."""

    reason: GapReason | None
    position: Position
    frames: list[Frame]


Asker = tuple[Position, "asyncio.Future[Replay]"]


class Replays:
    """Readings of one topic on behalf of clients, one at a time.

    A caller that asks while a reading is under way waits for the next one: a reading tells of everything published before it
    began, hence before the client asked. It begins at the oldest position among the askers. Should that one have missed too
    much, it is told so, and the others are read for in another round.

    Args:
        read: reads the topic after an offset.
        frame: makes the frame of an update.
    """

    def __init__(
        self,
        history: History,
        *,
        read: Callable[[int], Awaitable[TopicReading]],
        frame: Callable[[str, int, bytes], Frame],
        replay_limit: int,
    ) -> None:
        self._history = history
        self._read = read
        self._frame = frame
        self._replay_limit = replay_limit
        self._askers: list[Asker] = []
        self._epoch: str | None = None
        self._reader: asyncio.Task[None] | None = None
        self._has_read = asyncio.Event()
        self._has_read.set()

    @property
    def is_reading(self) -> bool:
        """Whether a reading is under way, which cannot answer who asks now."""
        return not self._has_read.is_set()

    async def has_read(self) -> None:
        """Wait until no reading is under way."""
        await self._has_read.wait()

    async def after(self, since: Position) -> Replay:
        """What came after ``since``, as of now or later.

        Raises:
            LiveWindowUnavailable: no answer in time; it may be asked again.
        """
        answer: asyncio.Future[Replay] = asyncio.get_running_loop().create_future()
        self._askers.append((since, answer))
        if self._reader is None:
            self._reader = asyncio.get_running_loop().create_task(self._run(), name="live replay")
        return await answer

    def cancel(self) -> None:
        """Nobody needs an answer any more."""
        if self._reader is not None:
            self._reader.cancel()

    async def _run(self) -> None:
        try:
            while self._askers:
                askers, self._askers = self._askers, []
                start = self._start(askers)
                self._has_read.clear()
                try:
                    reading = await self._read(start)
                except LiveWindowUnavailable as exc:
                    for _, answer in askers:
                        if not answer.done():
                            answer.set_exception(exc)
                    continue
                finally:
                    self._has_read.set()
                self._epoch = reading.epoch
                self._askers += self._tell(askers, start, reading)
        finally:
            self._reader = None

    def _start(self, askers: list[Asker]) -> int:
        """The oldest position that the reading may well answer; any, when all seem to be of another epoch."""
        offsets = [since.offset for since, _ in askers if self._epoch in (None, since.epoch)]
        return min(offsets or [askers[0][0].offset])

    def _tell(self, askers: list[Asker], start: int, reading: TopicReading) -> list[Asker]:
        """Answer those whom the reading answers; return the others."""
        begin, end = Position(reading.epoch, start), Position(reading.epoch, reading.top)
        shortcoming = shortfall(begin, reading, replay_limit=self._replay_limit)
        frames = [self._frame(reading.epoch, offset, body) for offset, body in reading.entries]
        if shortcoming is None:
            self._history.fill(begin, frames)
        left = []
        for since, answer in askers:
            reason = self._reason(since, reading)
            if reason is None and since.offset == start:
                reason = shortcoming
            if answer.done():
                continue
            if reason is not None:
                answer.set_result(Replay(reason, end, []))
            elif shortcoming is None and since.offset >= start:
                answer.set_result(Replay(None, end, frames[since.offset - start :]))
            else:
                left.append((since, answer))
        return left

    def _reason(self, since: Position, reading: TopicReading) -> GapReason | None:
        return can_resume(
            since, epoch=reading.epoch, top=reading.top, first=reading.first, replay_limit=self._replay_limit
        )
