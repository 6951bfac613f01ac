"""What each process of the service last said of itself, in memory that all of them share."""

import mmap
import os
import secrets
import struct
from collections.abc import Iterable

__all__ = ["MISSING_SECONDS", "SUPERVISOR", "Board"]

SUPERVISOR = "supervisor"
"""The first process's name on the board."""

MISSING_SECONDS = 30.0
"""How long a process may be gone before the service counts as dead: more than the longest wait before a restart."""

_WELL, _ALIVE, _ENDS = range(3)
_PLACE = struct.Struct("3d")


class Board:
    """Three times for each process, in seconds of the monotonic clock, which all processes of a machine share; 0 is never.

    Made before the processes are forked. Every process writes in its own place only, one aligned number at a time, so
    nothing is locked: a lock would stay taken when its holder is killed.

    Attributes:
        node_id: names the service from its start to its end, for others; 12 hexadecimal digits.
        first_pid: of the first process.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.node_id = secrets.token_hex(6)
        self.first_pid = os.getpid()
        self._places = {name: number for number, name in enumerate([SUPERVISOR, *names])}
        self._drained = len(self._places) * _PLACE.size
        self._memory = mmap.mmap(-1, self._drained + 1)

    @property
    def is_drained(self) -> bool:
        """Whether the node takes nothing new, as the worker heard that asked last."""
        return self._memory[self._drained] == 1

    def note_drained(self, *, is_drained: bool) -> None:
        """For workers that replace others. All hear of it from the same row, so it does not matter who writes last."""
        self._memory[self._drained] = int(is_drained)

    def note_alive(self, name: str, now: float, *, is_well: bool) -> None:
        """The process's main thread runs, and all that it is there for runs too if ``is_well``."""
        self._write(name, _ALIVE, now)
        if is_well:
            self._write(name, _WELL, now)

    def note_ending(self, name: str, ends_at: float) -> None:
        """The process has begun to end, and is gone at that time."""
        self._write(name, _ENDS, ends_at)

    def note_started(self, name: str) -> None:
        """Another process has taken the name over and has said nothing yet."""
        self._write(name, _ALIVE, 0.0)
        self._write(name, _ENDS, 0.0)

    def alive_at(self, name: str) -> float:
        """When the process last said that it runs; 0 before the first time."""
        return self._read(name)[_ALIVE]

    def ends_at(self, name: str) -> float:
        """When the process has to be gone; 0 if it is not ending."""
        return self._read(name)[_ENDS]

    def missing(self, now: float, *, since: float) -> list[str]:
        """Who has not been well for ``MISSING_SECONDS``; the time before ``since`` does not count."""
        return [name for name in self._places if now - max(since, self._read(name)[_WELL]) > MISSING_SECONDS]

    def _read(self, name: str) -> tuple[float, ...]:
        return _PLACE.unpack_from(self._memory, self._places[name] * _PLACE.size)

    def _write(self, name: str, which: int, value: float) -> None:
        struct.pack_into("d", self._memory, self._places[name] * _PLACE.size + 8 * which, value)
