"""The transaction that a handler writes in: whether it is still the one that ``hold`` began.

The driver's own connection cannot be kept from ending a transaction, so ``settle`` compares the transaction's id as well.
"""

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from holdfast.domain.errors import EffectsLost
from holdfast.domain.transitions import Transition
from holdfast.domain.update import Update
from holdfast.storage import lifecycle
from holdfast.storage.database import Database
from holdfast.storage.lending import Lent

__all__ = [
    "current_transaction", "has_committed", "is_committed", "own_transaction", "settle_held",
]  # fmt: skip

_CURRENT = text("SELECT CAST(pg_current_xact_id_if_assigned() AS text)")

_OWN = text("SELECT CAST(pg_current_xact_id() AS text)")

_STATUS = text("SELECT pg_xact_status(CAST(:transaction AS xid8))")

_PREPARED = text("""
SELECT gid FROM pg_prepared_xacts
WHERE database = current_database() AND transaction = CAST(CAST(:transaction AS xid8) AS xid)
""")

COMMITTED, IN_PROGRESS = "committed", "in progress"


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
        if not lent.is_closed_here() and (isinstance(exc, DBAPIError) or lent.hidden_by(exc)):
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
