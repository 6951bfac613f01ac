"""The transaction that a handler writes in: kept open while it runs, and whether it is still the one that ``hold`` began.

A session's methods and the statements sent through it can be refused. The driver's own connection cannot be kept from
ending a transaction, so ``settle`` compares the transaction's id as well.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from holdfast.domain.errors import EffectsLost
from holdfast.domain.transitions import Transition
from holdfast.domain.update import Update
from holdfast.storage import lifecycle
from holdfast.storage.database import Database
from holdfast.storage.lending import Lent

__all__ = [
    "current_transaction", "has_committed", "is_committed", "kept_open", "own_transaction", "settle_held",
]  # fmt: skip

_CURRENT = text("SELECT CAST(pg_current_xact_id_if_assigned() AS text)")

_OWN = text("SELECT CAST(pg_current_xact_id() AS text)")

_STATUS = text("SELECT pg_xact_status(CAST(:transaction AS xid8))")

_PREPARED = text("""
SELECT gid FROM pg_prepared_xacts
WHERE database = current_database() AND transaction = CAST(CAST(:transaction AS xid8) AS xid)
""")

COMMITTED, IN_PROGRESS = "committed", "in progress"

COMMIT = "a handler does not commit: return, and Holdfast commits its effects together with 'processed'"

ROLLBACK = "a handler does not roll back: raise an exception, or use ctx.session.begin_nested()"

BEGIN = "a handler runs in a transaction already; for work that may fail in part use ctx.session.begin_nested()"

CLOSE = "a handler does not close its session: Holdfast does, after the commit"

_METHODS = {
    "commit": COMMIT,
    "rollback": ROLLBACK,
    "close": CLOSE,
    "reset": CLOSE,
    "invalidate": CLOSE,
    "prepare": COMMIT,
}

_STATEMENTS = {
    ("commit",): COMMIT, ("end",): COMMIT, ("prepare", "transaction"): COMMIT, ("rollback",): ROLLBACK,
    ("abort",): ROLLBACK, ("begin",): BEGIN, ("start", "transaction"): BEGIN,
}  # fmt: skip


def settle_held(session: Session, settle: Transition, lent: Lent) -> list[Update]:
    """Apply a ``settle`` in the transaction it expects; the answer is empty where the lease was lost.

    An error that ``lent`` knows an earlier one for is passed on.

    Raises:
        EffectsLost: the session is in another transaction, or in none.
        AlreadyProcessed: see ``lifecycle.apply``.
    """
    try:
        updates = lifecycle.apply(session, [settle])
        if not updates and current_transaction(session) != settle.expected_transaction:
            raise EffectsLost("the transaction was ended while the handler ran")
    except SQLAlchemyError as exc:
        if isinstance(exc, DBAPIError) or lent.hidden_by(exc):
            raise
        raise EffectsLost("the session's connection was closed while the handler ran") from exc
    return updates


def current_transaction(session: Session) -> str | None:
    """The id of the session's transaction; ``None`` while it has written nothing."""
    found: str | None = session.execute(_CURRENT).scalar_one()
    return found


def own_transaction(session: Session) -> str:
    """The id of the session's transaction, which it is given now if it has written nothing yet."""
    found: str = session.execute(_OWN).scalar_one()
    return found


def is_committed(session: Session, transaction: str) -> bool:
    """Whether a transaction has committed; ``False`` also where the session's own one is aborted and cannot ask."""
    try:
        return bool(session.execute(_STATUS, {"transaction": transaction}).scalar_one() == COMMITTED)
    except SQLAlchemyError:
        return False


def has_committed(database: Database, transaction: str) -> bool:
    """Whether a transaction that is over left something behind, although Holdfast did not commit it.

    One that was prepared for a two-phase commit is rolled back: it would keep the event's row locked for ever.
    """
    with database.transaction() as session:
        status = session.execute(_STATUS, {"transaction": transaction}).scalar_one()
        prepared = session.scalars(_PREPARED, {"transaction": transaction}).all() if status == IN_PROGRESS else []
    for identifier in prepared:
        with database.engine.connect() as connection:
            statement = text("ROLLBACK PREPARED " + _literal(identifier))
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(statement)
    return bool(status == COMMITTED)


def _literal(identifier: str) -> str:
    """As a text literal: the statement takes no parameters. A colon would be one for SQLAlchemy."""
    return "'" + identifier.replace("'", "''").replace(":", "\\:") + "'"


@contextmanager
def kept_open(session: Session) -> Iterator[None]:
    """Within the block the session refuses to end its transaction: by its methods, and by a statement that says so.

    Raises:
        RuntimeError: within the block, where it was tried; the message names the remedy.
    """
    connection = session.connection()
    methods = vars(session)
    methods.update({name: _refusing(message) for name, message in _METHODS.items()})
    event.listen(connection, "before_cursor_execute", _check_statement)
    event.listen(connection, "commit", _refuse_commit)
    try:
        yield
    finally:
        event.remove(connection, "commit", _refuse_commit)
        event.remove(connection, "before_cursor_execute", _check_statement)
        for name in _METHODS:
            methods.pop(name, None)


def _check_statement(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
    words = tuple(statement.lstrip(" \t\r\n;")[:80].lower().replace(";", " ").split()[:3])
    is_to_savepoint = words[:1] == ("rollback",) and "to" in words[1:]
    message = _STATEMENTS.get(words[:1]) or _STATEMENTS.get(words[:2])
    if message is not None and not is_to_savepoint:
        raise RuntimeError(message)


def _refuse_commit(_connection: Any) -> None:
    raise RuntimeError(COMMIT)


def _refusing(message: str) -> Callable[[], None]:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError(message)

    return refuse
