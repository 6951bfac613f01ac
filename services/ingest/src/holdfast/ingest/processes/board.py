"""What each worker process last said of itself, in memory that all of them share."""

import mmap
import struct
import time

from holdfast.ingest.edge.threads import BUSY_SECONDS, NoFreeThread

__all__ = ["BEAT_SECONDS", "GONE_SECONDS", "MISSING_SECONDS", "Board", "Place", "WorkersMissing", "name_of"]

BEAT_SECONDS = 1.0
"""How often a worker says that it is there."""

MISSING_SECONDS = 3.0
"""A worker that has said nothing for so long makes the service not ready: its connections wait. One that died is back
before."""

GONE_SECONDS = 30.0
"""A worker, or the first process, that has said nothing for so long makes the service dead: more than the longest wait
before a restart."""

_WELL, _BEGUN, _WAITED, _CONNECTIONS = range(4)
_PLACE = struct.Struct("4d")
_NUMBER = struct.Struct("d")


def name_of(number: int) -> str:
    """By which a worker's metrics are filed and its end is logged."""
    return f"worker-{number}"


class WorkersMissing(Exception):
    """A worker process is gone, or hangs."""


class Board:
    """Four numbers for each process, the first process being number ``workers``.

    When it was last well, and when it has begun to serve (both in seconds of the monotonic clock, which all processes of a
    machine share; 0 is never), for how many seconds its oldest request had waited for a thread by then, and its connections.

    Made before the processes are forked. Every process writes in its own place only, one aligned number at a time, so
    nothing is locked: a lock would stay taken when its holder is killed.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._memory = mmap.mmap(-1, (workers + 1) * _PLACE.size)

    def note_first(self, now: float) -> None:
        """The first process looks after the workers."""
        self.write(self.workers, _WELL, now)

    def note_started(self, number: int) -> None:
        """Another process takes the place over and has said nothing yet; until it does it has more connections than any."""
        self.write(number, _BEGUN, 0.0)
        self.write(number, _WAITED, 0.0)
        self.write(number, _CONNECTIONS, float("inf"))

    def has_begun(self, number: int) -> bool:
        """Whether the process that has this place now has served."""
        return self._read(number)[_BEGUN] != 0

    def well_at(self, number: int) -> float:
        """When one that has this place was last well."""
        return self._read(number)[_WELL]

    def check(self, now: float) -> None:
        """For readiness.

        Raises:
            WorkersMissing: one of them has said nothing for ``MISSING_SECONDS``, or has not begun since its predecessor did.
            NoFreeThread: at one of them requests wait too long for a thread.
        """
        places = [self._read(number) for number in range(self.workers)]
        if any(now - place[_WELL] > MISSING_SECONDS for place in places):
            raise WorkersMissing
        if any(place[_WAITED] > BUSY_SECONDS for place in places):
            raise NoFreeThread

    def is_alive(self, now: float, *, since: float) -> bool:
        """For liveness: whether every process has been well lately. The time before ``since`` does not count."""
        return all(now - max(since, self._read(number)[_WELL]) <= GONE_SECONDS for number in range(self.workers + 1))

    def fewest_elsewhere(self, number: int, now: float) -> float:
        """Connections of the one that has the fewest of those that serve, this one aside; infinite if there is no other."""
        places = [self._read(other) for other in range(self.workers) if other != number]
        serving = [place[_CONNECTIONS] for place in places if now - place[_WELL] <= MISSING_SECONDS]
        return min(serving, default=float("inf"))

    def _read(self, number: int) -> tuple[float, ...]:
        return _PLACE.unpack_from(self._memory, number * _PLACE.size)

    def write(self, number: int, which: int, value: float) -> None:
        """One of the four numbers of a process; see :class:`Place`."""
        _NUMBER.pack_into(self._memory, number * _PLACE.size + which * _NUMBER.size, value)


class Place:
    """The place of one worker, which it writes in."""

    def __init__(self, board: Board, number: int) -> None:
        self.board = board
        self.number = number
        self.name = name_of(number)
        self._began = time.monotonic()

    def note_well(self, waited_seconds: float) -> None:
        """The loop turns; the oldest request has waited so long for a thread."""
        now = time.monotonic()
        write = self.board.write
        write(self.number, _WAITED, waited_seconds)
        write(self.number, _WELL, now)
        write(self.number, _BEGUN, now)

    def note(self, connections: float) -> None:
        """So many connections this worker has; infinite when it takes no more."""
        self.board.write(self.number, _CONNECTIONS, connections)

    def should_take(self, connections: int) -> bool:
        """Whether another worker has fewer: by an eighth at least, so that a burst is not held up."""
        return connections > 1.125 * self.board.fewest_elsewhere(self.number, time.monotonic())

    def check(self) -> None:
        """See :meth:`Board.check`."""
        self.board.check(time.monotonic())

    def is_alive(self) -> bool:
        """See :meth:`Board.is_alive`."""
        return self.board.is_alive(time.monotonic(), since=self._began)
