"""Positions in a topic, and the decision whether a client can resume from one.

A position is ``<epoch>:<offset>``. Offsets of a topic are contiguous (1, 2, 3, …) and mean something only within their
epoch. The epoch names one unbroken life of the topic in Redis: it changes whenever Redis may have forgotten updates.

A worked failure. A client holds ``a1-7:41``. Redis is restored from a dump taken at offset 38, and four new updates get
the offsets 39 to 42. Without the epoch the client would be sent offset 42 only and silently miss the new 39, 40 and 41,
having mistaken the old ones for them. With it the topic is now ``b2-9:42``: the client is told of a gap and refetches.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from holdfast.domain.errors import InvalidPosition

__all__ = ["GapReason", "Position", "can_resume", "merge"]

_POSITION = re.compile(r"([A-Za-z0-9-]{1,64}):(0|[1-9][0-9]{0,15})", re.ASCII)


class GapReason(StrEnum):
    """Why a client cannot be given exactly what it missed."""

    EPOCH = "epoch"
    """Redis may have forgotten updates since the client's position."""

    TRIMMED = "trimmed"
    """Updates after the position have left the window (by count or by age)."""

    TOO_MANY = "too_many"
    """More was missed than the replay limit."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a topic, after the update with this offset. Offset 0 is the place before the first update."""

    epoch: str
    offset: int

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Read ``<epoch>:<offset>``.

        Raises:
            InvalidPosition: the text has another shape.
        """
        match = _POSITION.fullmatch(text)
        if match is None:
            raise InvalidPosition("a position is '<epoch>:<offset>' as received in an update or subscribed frame")
        return cls(match[1], int(match[2]))

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}"


def can_resume(since: Position, *, epoch: str, top: int, first: int | None, replay_limit: int) -> GapReason | None:
    """Decide whether everything after ``since`` can still be given; ``None`` means yes.

    ``top`` is the topic's newest offset and ``first`` the oldest one still in the window (``None``: the window is
    empty). Entries between the two are contiguous.
    """
    if since.epoch != epoch or since.offset > top:
        return GapReason.EPOCH
    missed = top - since.offset
    if missed == 0:
        return None
    if first is None or first > since.offset + 1:
        return GapReason.TRIMMED
    return GapReason.TOO_MANY if missed > replay_limit else None


def merge(held: Position | None, seen: Position) -> Position:
    """The position to keep after seeing ``seen``: never backwards within an epoch, always into a new epoch."""
    if held is None or held.epoch != seen.epoch:
        return seen
    return held if held.offset >= seen.offset else seen
