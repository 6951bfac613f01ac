"""The only room with SQL. Functions take a session and never commit: the entry point owns the transaction.

``Session`` is re-exported so that the rooms above can name the type without importing SQLAlchemy.
"""

from sqlalchemy.orm import Session

__all__ = ["Session"]
