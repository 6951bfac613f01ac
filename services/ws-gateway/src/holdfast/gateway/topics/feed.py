"""A topic's stream of updates without holes, as a state machine that does no input or output.

What comes from Redis pub/sub may be late, doubled, or missing after a reconnect; what leaves here is contiguous, or says
where it is not. The hub feeds it with confirmations, messages and readings, and reads from Redis whenever it is ``READING``.

A worked failure. The topic stands at 41. The pub/sub connection breaks; 42 and 43 are published to nobody; it comes back
and 44 arrives. 44 is not 42, so the feed holds it and asks for a reading since 41, which brings 42 to 44 (or 45, which is
then on its way as a message too). All are passed on once: a message at or below ``last`` is dropped.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from holdfast.domain.position import GapReason, Position, can_resume
from holdfast.messaging.live import TopicReading

__all__ = ["Feed", "Jump", "Message", "Stage", "Step", "shortfall"]

HELD_MESSAGES = 1000
"""Messages kept while a reading is under way; beyond it another reading is cheaper than more memory."""


class Message(NamedTuple):
    """One update as it came from Redis."""

    epoch: str
    offset: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Jump:
    """Updates were missed and cannot be read any more; the topic goes on from ``position``."""

    reason: GapReason
    position: Position


Step = Message | Jump


class Stage(Enum):
    """What a feed waits for."""

    UNCONFIRMED = "unconfirmed"
    """Redis has not confirmed the subscription (yet, or again): no message can be trusted to be followed by the next."""
    READING = "reading"
    """A reading is due or under way; messages are held meanwhile."""
    LIVE = "live"
    """Messages pass as they come."""


def shortfall(since: Position, reading: TopicReading, *, replay_limit: int) -> GapReason | None:
    """Why ``reading`` (made with ``since.offset``) does not continue ``since``; ``None`` when it does, without a hole."""
    first = reading.first
    reason = can_resume(since, epoch=reading.epoch, top=reading.top, first=first, replay_limit=replay_limit)
    if reason is None and len(reading.entries) != reading.top - since.offset:
        # The script and the rule agree on what is complete; should they ever not, then the client is told of a gap.
        return GapReason.TRIMMED
    return reason


class Feed:
    """See the module. ``position`` is ``None`` until the first reading."""

    def __init__(self, *, replay_limit: int) -> None:
        self.stage = Stage.UNCONFIRMED
        self._epoch: str | None = None
        self._last = 0
        self._held: list[Message] = []
        self._is_stale = False
        self._replay_limit = replay_limit

    @property
    def position(self) -> Position | None:
        """After the last update that was passed on."""
        return None if self._epoch is None else Position(self._epoch, self._last)

    def confirmed(self) -> None:
        """Redis confirmed the subscription: from here on messages come. What came before has to be read.

        For a feed that was confirmed already this is the only sign of a connection that broke and came back.
        """
        self._read_again()

    def recheck(self) -> None:
        """Read although nothing seems amiss: finds what was missed silently, and keeps the topic's epoch alive."""
        if self.stage is Stage.LIVE:
            self._read_again()

    def lost(self) -> None:
        """The connection broke. What is held is in the next reading as well."""
        self.stage = Stage.UNCONFIRMED
        self._held.clear()

    def received(self, message: Message) -> list[Step]:
        """Take a message; return what to pass on."""
        if self.stage is Stage.UNCONFIRMED:
            return []
        if self.stage is Stage.READING:
            self._hold(message)
            return []
        return list(self._follow([message]))

    def begin_reading(self) -> int | None:
        """A reading starts now; return the offset to read since (``None``: just the position)."""
        self._is_stale = False
        return None if self._epoch is None else self._last

    def read(self, reading: TopicReading) -> list[Step]:
        """Take the reading; return what to pass on, held messages included. The feed is then live, or reads again."""
        if self.stage is not Stage.READING:
            return []
        steps = self._continue_with(reading)
        if self._is_stale:
            # The subscription was confirmed, or messages were dropped, after the reading may have been made.
            return steps
        self.stage = Stage.LIVE
        held, self._held = self._held, []
        return [*steps, *self._follow(held)]

    def _continue_with(self, reading: TopicReading) -> list[Step]:
        before = self.position
        self._epoch, self._last = reading.epoch, reading.top
        if before is None:
            return []
        reason = shortfall(before, reading, replay_limit=self._replay_limit)
        if reason is not None:
            return [Jump(reason, Position(reading.epoch, reading.top))]
        return [Message(reading.epoch, offset, body) for offset, body in reading.entries]

    def _follow(self, messages: list[Message]) -> Iterator[Step]:
        for message in messages:
            if self.stage is Stage.READING:
                self._hold(message)
            elif message.epoch == self._epoch and message.offset <= self._last:
                continue
            elif message.epoch == self._epoch and message.offset == self._last + 1:
                self._last = message.offset
                yield message
            else:
                # Not held: it was published before the reading that starts now, which tells of it as well. Held, a message of
                # an epoch that has ended would ask for one reading after another for ever.
                self.stage = Stage.READING

    def _hold(self, message: Message) -> None:
        if len(self._held) >= HELD_MESSAGES:
            self._held.clear()
            self._is_stale = True
        self._held.append(message)

    def _read_again(self) -> None:
        self.stage = Stage.READING
        self._held.clear()
        self._is_stale = True
