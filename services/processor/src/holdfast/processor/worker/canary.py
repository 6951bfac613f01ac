"""Noticing that a handler has closed descriptors that are not its own, or has left none."""

import os
import stat
import time

__all__ = ["Canary"]

OUTPUTS = (1, 2)

STARVED_SECONDS = 1.0
"""Without a free descriptor for this long no lost connection comes back; a handler may need very many for a moment."""


class Canary:
    """A descriptor that nobody uses, opened when the process starts: who closes it closed connections of ours as well.

    The next connection gets a number that was closed, and code that still has the number writes into it. Such a process
    must be replaced.
    """

    def __init__(self) -> None:
        self._descriptor = os.open(os.devnull, os.O_RDONLY)
        self._identity = _identity(self._descriptor)
        self._has_sockets = [_is_socket(each) for each in OUTPUTS]
        self._starving_since: float | None = None

    @property
    def is_starving(self) -> bool:
        """Whether there was no free descriptor at the last look."""
        return self._starving_since is not None

    def is_dead(self) -> bool:
        """Whether the descriptor, or one of the two outputs, is closed or has become a connection, or none is free.

        While it is starving, to be asked several times in ``STARVED_SECONDS``.
        """
        try:
            is_changed = _identity(self._descriptor) != self._identity
            return is_changed or [_is_socket(each) for each in OUTPUTS] != self._has_sockets or self._is_starved()
        except OSError:
            return True

    def _is_starved(self) -> bool:
        try:
            os.close(os.dup(self._descriptor))
        except OSError:
            now = time.monotonic()
            self._starving_since = self._starving_since or now
            return now - self._starving_since > STARVED_SECONDS
        self._starving_since = None
        return False


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _is_socket(descriptor: int) -> bool:
    return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
