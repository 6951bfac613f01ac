"""Everybody who is connected, and who has to go when there is no more room."""

import asyncio
from typing import Generic, Protocol, TypeVar

from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = ["Crowd", "Guest"]

log = logging.get(__name__)


class Guest(Protocol):
    """A connection."""

    def evict(self) -> None:
        """Close at once."""


Connection = TypeVar("Connection", bound=Guest)


class Crowd(Generic[Connection]):
    """Bounds connections, and the bytes of bodies in memory, by evicting who has waited longest for its own next byte.

    A good client sends its request within milliseconds, so it is never the oldest for long. Connections that have had an
    answer before go last. One whose request is being served is never evicted.

    Args:
        most_connections: at most this many at once.
        most_bytes: of request bodies in memory at once, those that wait for a thread included.
    """

    def __init__(self, *, most_connections: int, most_bytes: int) -> None:
        self._most_connections = most_connections
        self._most_bytes = most_bytes
        self._all: set[Connection] = set()
        # Dictionaries for their order: the first one has waited longest.
        self._strangers: dict[Connection, None] = {}
        self._known: dict[Connection, None] = {}
        self._bytes = 0
        self._is_full = logging.Rarely(seconds=60)
        self.inhabited = asyncio.Event()
        """Set while anybody is connected."""
        self.deserted = asyncio.Event()
        """Set while nobody is."""
        self.deserted.set()

    def __len__(self) -> int:
        return len(self._all)

    def everybody(self) -> list[Connection]:
        """Who is connected now."""
        return list(self._all)

    def admit(self, connection: Connection) -> None:
        """A new connection; evicts another one, or this one, when there is no room."""
        self._all.add(connection)
        self.inhabited.set()
        self.deserted.clear()
        if len(self._all) <= self._most_connections:
            return
        if self._is_full.is_due():
            log.warning(Log.CONNECTION_LIMIT, limit=self._most_connections)
        self._evict(next(iter(self._strangers), None) or next(iter(self._known), None) or connection)

    def leave(self, connection: Connection) -> None:
        """The connection is closed."""
        self._all.discard(connection)
        self.serve(connection)
        if not self._all:
            self.inhabited.clear()
            self.deserted.set()

    def await_input(self, connection: Connection, *, is_known: bool) -> None:
        """The connection has to send something next."""
        (self._known if is_known else self._strangers)[connection] = None

    def serve(self, connection: Connection) -> None:
        """The connection's request is whole: it is for this process to act."""
        self._strangers.pop(connection, None)
        self._known.pop(connection, None)

    def keep(self, count: int) -> bool:
        """Bytes of a body came in. ``False``: there are too many in memory, so this body cannot be kept."""
        self._bytes += count
        return self._bytes <= self._most_bytes

    def free(self, count: int) -> None:
        """These bytes are gone."""
        self._bytes -= count

    def _evict(self, connection: Connection) -> None:
        self.leave(connection)
        connection.evict()
