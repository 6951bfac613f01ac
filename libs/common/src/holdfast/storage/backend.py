"""The connection under a session, as another thread may act on it."""

import os
import socket
from contextlib import suppress
from typing import Any

import psycopg2

from holdfast.storage import Session

__all__ = ["Backend"]


class Backend:
    """Made by the thread that has the session, within its transaction."""

    def __init__(self, session: Session) -> None:
        self._connection: Any = session.connection().connection.dbapi_connection

    def cancel(self) -> None:
        """Let the server cancel the statement that runs, if one does. May wait for the server."""
        with suppress(psycopg2.Error):
            self._connection.cancel()

    def cut(self) -> None:
        """End the connection without waiting for the thread that has it: the server rolls back and frees its locks.

        Not ``close()``, which would wait for a statement that runs. PostgreSQL notices within two seconds
        (``client_connection_check_interval``) while it runs a statement, and at once otherwise.
        """
        with suppress(psycopg2.Error, OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as copy:
            copy.shutdown(socket.SHUT_RDWR)
