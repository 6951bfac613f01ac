"""Connections whose transactions bring their settings along.

Nothing that Holdfast needs lives in a session on the server: behind a pooler in transaction mode two transactions of one
client meet different sessions, and a setting made in one of them would be met by somebody else's. So each transaction begins
with its isolation and settings, all in one query with its first statement: beginning has no round trip of its own.
"""

from collections.abc import Callable, Mapping
from typing import Any

import psycopg2
from psycopg2.extensions import (
    ISOLATION_LEVEL_AUTOCOMMIT,
    TRANSACTION_STATUS_IDLE,
    TRANSACTION_STATUS_INTRANS,
    make_dsn,
)
from psycopg2.extensions import connection as DriverConnection  # noqa: N812 (a class with a lower-case name)
from psycopg2.extensions import cursor as DriverCursor  # noqa: N812
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

from holdfast.storage.address import Address

__all__ = ["DIALECT", "Connection", "Dialect", "TransactionRolledBack", "beginning", "connector", "settings_of"]

DIALECT = "postgresql+holdfast"
"""psycopg2's dialect of SQLAlchemy with :class:`Dialect`'s way to begin."""

_KEEPALIVES = {
    "keepalives": "1", "keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "3",
    "tcp_user_timeout": "25000",
}  # fmt: skip
"""A peer that vanished without a FIN is noticed after some 25 s instead of the kernel's two hours; and one that vanished
before it acknowledged a statement, for which there are no keepalives, instead of its quarter of an hour."""


class TransactionRolledBack(psycopg2.InternalError):
    """The server answered ``COMMIT`` with a rollback: a statement had failed, and somebody swallowed its error."""


class Dialect(PGDialect_psycopg2):
    """Sends the transaction's begin itself; the connections of :func:`connector` know what it is."""

    supports_statement_cache = True

    def do_begin(self, dbapi_connection: Any) -> None:
        """Begin a transaction, unless the connection was put into autocommit mode."""
        dbapi_connection.begin()


registry.register(DIALECT.replace("+", "."), __name__, Dialect.__name__)


class _Cursor(DriverCursor):
    """Sends the begin of its connection's transaction along with the first statement."""

    connection: Any

    def execute(self, query: Any, parameters: Any = None) -> None:
        begin = self.connection.pending
        if not begin or not isinstance(query, str):
            self.connection.start()
            super().execute(query, parameters)
            return
        self.connection.pending = ""
        try:
            super().execute(f"{begin}; {query}", parameters)
        except psycopg2.Error:
            if self.connection.is_idle():  # it could not be parsed, so nothing of it has run
                self.connection.pending = begin
            raise

    def executemany(self, *args: Any, **options: Any) -> None:
        self.connection.start()
        super().executemany(*args, **options)

    def callproc(self, *args: Any, **options: Any) -> None:
        self.connection.start()
        super().callproc(*args, **options)

    def copy_expert(self, *args: Any, **options: Any) -> None:
        self.connection.start()
        super().copy_expert(*args, **options)


class Connection(DriverConnection):
    """Begins, commits and rolls back by statements of its own; psycopg2 would send a ``BEGIN`` without settings.

    Attributes:
        pending: the begin of a transaction of which the server has heard nothing yet.
        is_closed_here: it was closed while it was sound. psycopg2 marks one that the server has ended (``closed`` is 2)
            before anybody can close it.
        after_commit: statements to be sent along with the next ``COMMIT``, after its transaction. Empty when they have run.
    """

    begin_statement = ""
    is_closed_here = False
    pending = ""
    after_commit = ""
    is_autocommitting = False
    _control: Any = None

    def begin(self) -> None:
        if not self.is_autocommitting:
            self.pending = self.begin_statement

    def close(self) -> None:
        self.is_closed_here = self.is_closed_here or not self.closed
        super().close()

    def start(self) -> None:
        """Let the server begin now, if a transaction is pending."""
        if self.pending:
            begin, self.pending = self.pending, ""
            self._execute(begin)

    def commit(self) -> None:
        self.pending = ""
        if self.is_idle():
            return
        if self.after_commit and self.info.transaction_status == TRANSACTION_STATUS_INTRANS:
            self._execute(f"COMMIT; {self.after_commit}")
            self.after_commit = ""
        elif self._execute("COMMIT") != "COMMIT":
            raise TransactionRolledBack("the transaction was rolled back: one of its statements had failed")

    def rollback(self) -> None:
        self.pending = ""
        if self.closed:
            super().rollback()  # raises what SQLAlchemy knows a dead connection by
        if not self.is_idle():
            self._execute("ROLLBACK")

    def _execute(self, statement: str) -> str:
        """Returns the server's word for what it did. One cursor for all: a transaction takes two of these statements."""
        if not self.autocommit:
            self.autocommit = True  # psycopg2's word for: transactions are somebody else's business
        if self._control is None:
            self._control = super().cursor(cursor_factory=DriverCursor)
        self._control.execute(statement)
        return str(self._control.statusmessage)

    def cursor(self, name: Any = None, cursor_factory: Any = None, *args: Any, **options: Any) -> Any:
        # psycopg2 refuses a named cursor in autocommit mode unless it may outlive the transaction.
        options = options if name is None else {"withhold": True} | options
        chosen: Any = self.cursor_factory
        made = super().cursor(name, cursor_factory or chosen or _Cursor, *args, **options)
        if name is not None or not isinstance(made, _Cursor):
            self.start()  # when these send something is the driver's business
        return made

    def set_isolation_level(self, level: int | None) -> None:
        """Each transaction's own ``BEGIN`` says it; psycopg2 would leave autocommit mode."""
        self.is_autocommitting = level == ISOLATION_LEVEL_AUTOCOMMIT

    def is_idle(self) -> bool:
        """Whether the server has no transaction open."""
        return self.info.transaction_status == TRANSACTION_STATUS_IDLE


def connector(
    address: Address, *, application_name: str, connect_timeout_seconds: int, begin_statement: str
) -> Callable[[], DriverConnection]:
    """Opens connections. What the address says itself goes before what is set here.

    Args:
        begin_statement: see :func:`beginning`.
    """
    defaults = {**_KEEPALIVES, "application_name": application_name, "connect_timeout": str(connect_timeout_seconds)}
    dsn = make_dsn(**(defaults | address.parameters))

    def connect() -> DriverConnection:
        opened = psycopg2.connect(dsn, connection_factory=Connection)
        opened.autocommit = True
        opened.begin_statement = begin_statement
        return opened

    return connect


def beginning(settings: Mapping[str, str]) -> str:
    """The statements with which a transaction begins, as one query.

    READ COMMITTED whatever the database's default is: the guards of storage are written for it, and under REPEATABLE READ two
    claims at once would fail instead of waiting for one another.
    """
    return f"BEGIN ISOLATION LEVEL READ COMMITTED; {settings_of(settings)}"


def settings_of(settings: Mapping[str, str]) -> str:
    """The statements that set these for a transaction.

    Sent in one query with a statement and without ``BEGIN``, they are in one transaction with it, which ends with the query:
    https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-MULTI-STATEMENT
    """
    return "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in settings.items())
