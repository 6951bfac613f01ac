"""Engines and sessions for PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from holdfast.domain.errors import ConfigurationError, DatabaseUnavailable, StatementTooSlow
from holdfast.storage import lending

__all__ = ["Database", "normalise_url"]

_KEEPALIVES = {
    "keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25_000,
}  # fmt: skip
"""A peer that vanished without a FIN is noticed after some 25 s instead of the kernel's two hours; and one that vanished
before it acknowledged a statement, for which there are no keepalives, instead of its quarter of an hour."""

QUERY_CANCELED = "57014"
"""SQLSTATE of a statement that reached ``statement_timeout``."""

_RETRY_SOON = ("57P01", "57P02", "57P03", "53100", "53300", "08", "25006")
"""SQLSTATEs of a server that is stopping, starting, full, cut off, or read-only (a standby, or one that is spared before its
disk is full): nothing is wrong with the statement."""


def normalise_url(url: str) -> URL:
    """Read a PostgreSQL address; ``postgresql://`` and ``postgres://`` mean psycopg2.

    SQLAlchemy 2.1 reads a bare ``postgresql://`` as psycopg 3, which is not installed here.

    Raises:
        ConfigurationError: not the address of a PostgreSQL database.
    """
    try:
        parsed = make_url(url)
    except Exception as exc:
        raise ConfigurationError("DATABASE_URL must look like postgresql://user:password@host:5432/name") from exc
    if parsed.drivername not in {"postgres", "postgresql", "postgresql+psycopg2"}:
        raise ConfigurationError(f"DATABASE_URL names {parsed.drivername!r}; Holdfast runs on postgresql://")
    return parsed.set(drivername="postgresql+psycopg2")


class Database:
    """A pool of connections and the transactions on it.

    Args:
        url: see :func:`normalise_url`.
        pool_size: connections kept open; at most as many again are opened for a burst.
        is_durable: ``False`` for claims only: their commit does not wait for the disk. A claim lost in a crash of
            PostgreSQL is as good as a claim never made, since the lease token is random (measured about 1.9 times as fast
            as durable claims; a ``SET LOCAL`` per transaction loses that gain to its round trip).
        statement_timeout_seconds: a statement that takes longer is cancelled by the server; 0 means no limit.
        idle_in_transaction_seconds: a transaction left open that long is ended by the server and its locks freed.
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
    ) -> None:
        options = {
            "timezone": "UTC",
            "statement_timeout": int(statement_timeout_seconds * 1000),
            "idle_in_transaction_session_timeout": int(idle_in_transaction_seconds * 1000),
            # A worker killed in the middle of a long statement must not keep its event's row locked until that ends.
            "client_connection_check_interval": 2000,
        }
        if not is_durable:
            options["synchronous_commit"] = "off"
        self.engine: Engine = create_engine(
            normalise_url(url),
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=connect_timeout_seconds,
            hide_parameters=True,  # a statement's parameters are payloads; errors end up in logs
            connect_args={
                **_KEEPALIVES,
                "application_name": application_name,
                "connect_timeout": connect_timeout_seconds,
                "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
            },
        )
        event.listen(self.engine, "handle_error", _hide_values)
        lending.install(self.engine, on_renewed=self._set_up_again)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session whose work commits when the block ends and rolls back when it raises.

        Raises:
            DatabaseUnavailable: PostgreSQL went away before or during the block, or at the commit. After a failed commit
                it is unknown whether it took effect, so whatever is done again must be idempotent.
            StatementTooSlow: a statement took longer than it may.
        """
        try:
            with self._sessions.begin() as session:
                yield session
        except DBAPIError as exc:
            if _is_unavailable(exc):
                # Every pooled connection leads to the same dead server: without this each one costs a failed request.
                self.engine.dispose()
                raise DatabaseUnavailable(
                    "PostgreSQL is not reachable or takes no writes; check DATABASE_URL and the server"
                ) from exc
            if getattr(exc.orig, "pgcode", None) == QUERY_CANCELED:
                raise StatementTooSlow("PostgreSQL cancelled a statement that took too long") from exc
            raise
        except PoolTimeout as exc:
            raise DatabaseUnavailable("no free database connection; raise the pool size or lower the load") from exc

    def ping(self) -> None:
        """One round trip.

        Raises:
            DatabaseUnavailable: no answer.
        """
        with self.transaction() as session:
            session.execute(text("SELECT 1"))

    def _set_up_again(self, connection: Any) -> None:
        """Called with each psycopg2 connection whose session was discarded.

        What libpq sent as ``options`` is the session's default and is in force again by itself.
        """

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
