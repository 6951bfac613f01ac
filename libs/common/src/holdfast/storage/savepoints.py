"""Savepoints of one transaction, one after the other: each is kept by beginning the next, in one round trip."""

from sqlalchemy.orm import Session

__all__ = ["Savepoints"]


class Savepoints:
    """Parts of a transaction that are undone one by one. Not ``Session.begin_nested()``, which takes two round trips and
    most of the time of a short part.

    What the session remembers is forgotten with each part: the next one begins with an empty session. A part that fails in a
    flush of the session spoils the whole transaction, which SQLAlchemy then refuses to go on with.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._connection = session.connection()
        self._is_open = False

    def begin(self) -> None:
        """Keep the part before, and begin the next one."""
        self._session.expunge_all()
        self._connection.exec_driver_sql(
            "RELEASE SAVEPOINT part; SAVEPOINT part" if self._is_open else "SAVEPOINT part"
        )
        self._is_open = True

    def undo(self) -> None:
        """Undo the part."""
        self._session.expunge_all()
        self._connection.exec_driver_sql("ROLLBACK TO SAVEPOINT part")
