"""Engines and sessions for PostgreSQL."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

import psycopg2
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from holdfast.domain.errors import DatabaseUnavailable, StatementTooSlow, TransactionConflict
from holdfast.runtime.descriptors import keep_from_children
from holdfast.storage import kept, lending, planned
from holdfast.storage.address import parse_address
from holdfast.storage.connection import DIALECT, beginning, connector, settings_of
from holdfast.storage.sealing import INFO, Sealing

__all__ = ["Database"]

Answer = TypeVar("Answer")
Rest = ParamSpec("Rest")

QUERY_CANCELED = "57014"
"""SQLSTATE of a statement that reached ``statement_timeout``."""

_RETRY_SOON = ("57P01", "57P02", "57P03", "53100", "53300", "08", "25006")
"""SQLSTATEs of a server that is stopping, starting, full, cut off, or read-only (a standby, or one that is spared before its
disk is full): nothing is wrong with the statement."""

_CONFLICT = ("40001", "40P01")
"""SQLSTATEs of a transaction that was rolled back because of another one: serialization failure, deadlock."""


class Database:
    """A pool of connections and the transactions on it.

    Args:
        url: see :func:`holdfast.storage.address.parse_address`.
        pool_size: connections kept open; at most as many again are opened for a burst.
        is_durable: ``False`` for claims only: their commit does not wait for the disk. A claim lost in a crash of
            PostgreSQL is as good as a claim never made, since the lease token is random (measured about 1.9 times as fast
            as durable claims; a ``SET LOCAL`` per transaction loses that gain to its round trip).
        statement_timeout_seconds: a statement that takes longer is cancelled by the server; 0 means no limit.
        idle_in_transaction_seconds: a transaction left open that long is ended by the server and its locks freed.
        sealing: what its sessions seal and open data of events with.
    """

    def __init__(
        self,
        url: str,
        *,
        application_name: str,
        pool_size: int = 5,
        is_durable: bool = True,
        connect_timeout_seconds: int = 5,
        statement_timeout_seconds: float = 30,
        idle_in_transaction_seconds: float = 60,
        sealing: Sealing | None = None,
    ) -> None:
        self._address = parse_address(url)
        settings = {
            "timezone": "UTC",
            # What psycopg2 reads times and intervals in. It sets the first when it connects; RESET ALL undoes that.
            "datestyle": "ISO",
            "intervalstyle": "postgres",
            "statement_timeout": str(int(statement_timeout_seconds * 1000)),
            "lock_timeout": "0",
            "idle_in_transaction_session_timeout": str(int(idle_in_transaction_seconds * 1000)),
            # A worker killed in the middle of a long statement must not keep its event's row locked until that ends.
            "client_connection_check_interval": "2000",
            # Said for durable ones too: a database whose default is off would forget what was accepted.
            "synchronous_commit": "on" if is_durable else "off",
        }
        self.most_connections = 2 * pool_size
        self.engine: Engine = create_engine(
            URL.create(DIALECT, database=self._address.database),
            creator=connector(
                self._address, application_name=application_name, connect_timeout_seconds=connect_timeout_seconds,
                begin_statement=beginning(settings),
            ),
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=connect_timeout_seconds,
            hide_parameters=True,  # a statement's parameters are payloads; errors end up in logs
        )  # fmt: skip
        event.listen(self.engine, "handle_error", _hide_values)
        event.listen(self.engine, "connect", lambda connection, _: keep_from_children(connection))
        lending.install(self.engine)
        planned.install(self.engine)
        kept.install(self.engine)
        self._sessions = sessionmaker(
            self.engine, expire_on_commit=False, info=None if sealing is None else {INFO: sealing}
        )
        self._settings = settings_of(settings)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session whose work commits when the block ends and rolls back when it raises.

        Raises:
            TransactionConflict: PostgreSQL rolled it back because of another transaction; done again it may succeed.
            DatabaseUnavailable: PostgreSQL went away before or during the block, or at the commit. After a failed commit
                it is unknown whether it took effect, so whatever is done again must be idempotent.
            StatementTooSlow: a statement took longer than it may.
        """
        with self._translating(), self._sessions.begin() as session:
            yield session

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as exc:
            if (error := self._translated(exc)) is None:
                raise
            raise error from exc
        except PoolTimeout as exc:
            raise DatabaseUnavailable("no free database connection; raise the pool size or lower the load") from exc

    def call(
        self, function: Callable[Concatenate[Session, Rest], Answer], *args: Rest.args, **options: Rest.kwargs
    ) -> Answer:
        """What ``function(session, …)`` returns, in a transaction of its own.

        Raises:
            TransactionConflict, DatabaseUnavailable, StatementTooSlow: as :meth:`transaction`; or what ``function`` raises.
        """
        with self.transaction() as session:
            return function(session, *args, **options)

    def look(self, statement: str, **parameters: Any) -> tuple[Any, ...]:
        """The row that a ``SELECT`` of one row returns, in one round trip and past SQLAlchemy.

        For what is asked every second: :meth:`call` has three round trips, and takes three times the interpreter's time.

        Args:
            statement: with psycopg2's placeholders, ``%(name)s``. Its parameters must not be payloads.

        Raises:
            DatabaseUnavailable, StatementTooSlow: as :meth:`transaction`.
        """
        with self._translating():
            try:
                return self._row(f"{self._settings}; {statement}", parameters)
            except psycopg2.Error as exc:
                raise DBAPIError.instance(statement, None, exc, psycopg2.Error) from exc

    def _row(self, statement: str, parameters: Mapping[str, Any]) -> tuple[Any, ...]:
        connection = self.engine.raw_connection()
        try:
            cursor: Any = connection.cursor()
            cursor.execute(statement, parameters)
            row: tuple[Any, ...] = cursor.fetchone()
        except psycopg2.Error as exc:
            connection.invalidate(exc)  # in whatever state it is
            raise
        finally:
            connection.close()
        return row

    def _translated(self, exc: DBAPIError) -> Exception | None:
        """The error of the house that says the same; ``None`` where something is wrong with the statement."""
        code = getattr(exc.orig, "pgcode", None)
        if _is_unavailable(exc):
            # Every pooled connection leads to the same dead server: without this each one costs a failed request.
            self.engine.dispose()
            reason = self._address.without_secrets("; ".join(str(exc.orig).split("\n")).strip("; "))
            return DatabaseUnavailable(
                f"PostgreSQL is not reachable or takes no writes ({reason}); check HOLDFAST_DATABASE_URL and the server"
            )
        if code in _CONFLICT:
            return TransactionConflict("PostgreSQL rolled the transaction back because of another one; do it again")
        if code == QUERY_CANCELED:
            return StatementTooSlow("PostgreSQL cancelled a statement that took too long")
        return None

    def ping(self) -> None:
        """One round trip.

        Raises:
            DatabaseUnavailable: no answer.
        """
        self.call(lambda session: session.execute(text("SELECT 1")))

    def close(self) -> None:
        """Give all connections back to the server."""
        self.engine.dispose()


def _hide_values(context: ExceptionContext) -> None:
    """Cut PostgreSQL's message down to what names no value.

    ``hide_parameters`` is not enough: psycopg2 writes parameters into the statement, and the server quotes the place of an
    error, the failing row and the key that is there already. Of a data exception (class 22) even the first line does.
    """
    error: Any = context.original_exception
    told = getattr(getattr(error, "diag", None), "message_primary", None)
    if told is None:
        return
    if error.pgcode.startswith("22"):
        told = f"data exception {error.pgcode}; the value is not told, it may be a payload"
    error.args = (told,)
    if context.sqlalchemy_exception is not None:
        context.sqlalchemy_exception.args = (f"({type(error).__module__}.{type(error).__name__}) {told}",)


def _is_unavailable(exc: DBAPIError) -> bool:
    code: Any = getattr(exc.orig, "pgcode", None)
    if exc.connection_invalidated or (code is None and isinstance(exc, OperationalError)):
        return True
    return code is not None and str(code).startswith(_RETRY_SOON)
