"""Connections and listening sockets that belong to this process alone, though a fork copies them."""

import contextlib
import os
import weakref
from typing import Protocol

__all__ = ["HasDescriptor", "keep_from_children", "lead_nowhere"]


class HasDescriptor(Protocol):
    """A socket, or a connection of a database driver."""

    def fileno(self) -> int:
        """Its file descriptor; raises or is negative when it is closed."""


_kept: "weakref.WeakSet[HasDescriptor]" = weakref.WeakSet()


def keep_from_children(connection: HasDescriptor) -> None:
    """Remember a connection that no forked child may use: two processes that speak on one connection garble both."""
    _kept.add(connection)


def lead_nowhere() -> None:
    """In a forked child: let its copies of those descriptors lead to ``/dev/null``.

    Not closed, because the next file that the child opens would get the number, and the driver would write into it.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    for connection in list(_kept):
        with contextlib.suppress(Exception):  # closed, or of a driver that says so in its own way
            if (descriptor := connection.fileno()) >= 0:
                os.dup2(nowhere, descriptor, inheritable=False)
    os.close(nowhere)
