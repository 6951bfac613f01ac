"""Connections that a handler has used: what became of them, and how they come back as new.

A handler may leave anything in a database session: settings, temporary tables, a role, advisory locks, prepared statements.
The next one is another tenant's, so the session is discarded with the commit, or when the connection comes back.
"""

from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.orm import Session

from holdfast.domain.errors import ConfigurationError
from holdfast.storage.connection import Connection

__all__ = ["Lent", "install", "lend"]

TRANSACTION_ABORTED = "25P02"
"""SQLSTATE of every statement that follows a failed one in the same transaction."""

_AS_NEW = (
    "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; DEALLOCATE ALL; UNLISTEN *; SELECT pg_advisory_unlock_all();"
    " DISCARD TEMP; DISCARD SEQUENCES"
)
"""What ``DISCARD ALL`` stands for, but for ``DISCARD PLANS``: plans of functions (``storage.planned``, and those of foreign
keys) say nothing of who used them, and to make them anew takes longer than all the rest.
https://www.postgresql.org/docs/current/sql-discard.html"""

_LENT = "holdfast.lent"

_ATTRIBUTES = (
    "autocommit", "is_autocommitting", "isolation_level", "readonly", "deferrable", "encoding", "cursor_factory",
)  # fmt: skip
"""What psycopg2, and ``storage.connection``, keep of a connection beside the server's session."""


class Lent:
    """A connection from the moment at which a handler gets it. Ask it in the transaction's own thread."""

    def __init__(self, connection: Any, transaction: str) -> None:
        self.transaction = transaction
        """Its id; see ``lifecycle.hold``."""
        self._connection = connection
        self._attributes = _attributes(connection)
        self._is_asked_to_renew = False
        self.last_error: DBAPIError | None = None
        """The last error of a statement, other than the one that only says that there was an error before."""

    def is_cut_off(self) -> bool:
        """Whether the server, or the way to it, has ended the connection. After an error this tells an outage of the database
        from all that resembles one."""
        return bool(self._connection.closed) and not self.is_closed_here()

    def is_closed_here(self) -> bool:
        """Whether the connection was closed on this side while it was sound.

        SQLAlchemy does so when an exception that is no error (a timeout of ours, ``SystemExit``) breaks off a statement, and
        a handler may. Neither is an outage: after one the handler would run again, and again.
        """
        return bool(getattr(self._connection, "is_closed_here", False))

    def hidden_by(self, exc: BaseException) -> DBAPIError | None:
        """The error that aborted the transaction, where ``exc`` only says that it was aborted before."""
        is_aborted = isinstance(exc, DBAPIError) and getattr(exc.orig, "pgcode", None) == TRANSACTION_ABORTED
        # SQLAlchemy rolls a session back whose flush failed, and then refuses to use it.
        return self.last_error if is_aborted or isinstance(exc, InvalidRequestError) else None

    def renew_at_commit(self) -> None:
        """The handler is done and the next thing is the commit: let the session be discarded in the same round trip.

        It also meets the same session behind a pooler in transaction mode, which takes it away with the commit.
        """
        self._connection.after_commit = _AS_NEW
        self._is_asked_to_renew = True

    def is_renewed(self) -> bool:
        """Whether that has been done."""
        return self._is_asked_to_renew and not self._connection.after_commit

    def is_changed(self) -> bool:
        """Whether the handler has changed how psycopg2 uses the connection."""
        return _attributes(self._connection) != self._attributes


def lend(session: Session, transaction: str) -> Lent:
    """Note that a handler gets the session's connection, in the transaction with this id.

    Raises:
        ConfigurationError: the session is not one of ``holdfast.storage.database.Database``.
    """
    connection = session.connection()
    if not isinstance(connection.connection.dbapi_connection, Connection):
        raise ConfigurationError(
            "the session is to be one of holdfast.storage.database.Database, whose transactions can be looked into:"
            " with Database(url, application_name='test').transaction() as session"
        )
    lent = Lent(connection.connection.dbapi_connection, transaction)
    connection.info[_LENT] = lent
    return lent


def install(engine: Engine) -> None:
    """Let the engine's connections come back as new. Nothing has to be set up again: each transaction brings its settings."""

    def renew(connection: Any, record: Any, state: Any) -> None:
        lent = record.info.pop(_LENT, None)
        if lent is None or state.terminate_only:
            return
        try:
            _discard(connection, lent)
        except Exception as exc:  # noqa: BLE001 (a connection in an unknown state is closed, whatever the reason)
            record.invalidate(exc)

    event.listen(engine, "reset", renew)
    event.listen(engine, "handle_error", _note_error)


def _discard(connection: Any, lent: Lent) -> None:
    connection.rollback()
    if lent.is_changed():
        raise RuntimeError("the handler changed how psycopg2 uses the connection")
    if not lent.is_renewed():
        connection.after_commit = ""
        with connection.cursor() as cursor:
            cursor.execute(_AS_NEW)
    del connection.notices[:], connection.notifies[:]


def _note_error(context: ExceptionContext) -> None:
    error = context.sqlalchemy_exception
    if not isinstance(error, DBAPIError) or context.is_disconnect or context.connection is None:
        return
    lent = None if context.connection.closed else context.connection.info.get(_LENT)
    if lent is not None and getattr(error.orig, "pgcode", None) != TRANSACTION_ABORTED:
        lent.last_error = error


def _attributes(connection: Any) -> tuple[Any, ...]:
    types = (dict(connection.string_types), dict(connection.binary_types))
    return (*(getattr(connection, name) for name in _ATTRIBUTES), *types)
