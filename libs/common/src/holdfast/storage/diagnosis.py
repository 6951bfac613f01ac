"""What a database looks like to somebody who searches for a fault: facts, without a verdict."""

import time
from dataclasses import dataclass, field

from sqlalchemy import text
from sqlalchemy.orm import Session

from holdfast.domain.errors import DatabaseUnavailable, DatabaseUnsuitable
from holdfast.domain.event_types import route_text
from holdfast.storage.backlog import oldest_due_age_seconds
from holdfast.storage.database import Database
from holdfast.storage.schema import applied_revision
from holdfast.storage.served import is_served_elsewhere, unserved_types

__all__ = ["DatabaseFacts", "look_at_database"]

MOST_TYPES = 20
"""Types for which events wait that are looked up: a fault shows in the first few."""

_SERVER = text("""
SELECT current_setting('server_encoding') AS encoding,
       CAST(current_setting('server_version_num') AS int) AS version,
       current_setting('transaction_read_only') = 'on' AS is_read_only,
       CAST(current_setting('max_connections') AS int)
         - CAST(current_setting('superuser_reserved_connections') AS int) AS max_connections,
       extract(epoch FROM clock_timestamp()) AS now
""")

# Names of applications are shown for other roles' sessions too; that of a client behind a pooler is the last one's.
_SESSIONS = text("""
SELECT application_name AS name, count(*) AS sessions, bool_or(datname = current_database()) AS is_here
FROM pg_stat_activity WHERE backend_type = 'client backend' GROUP BY application_name
""")


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """A database and its server at one moment."""

    encoding: str
    server_version: int
    """As ``server_version_num`` counts."""
    is_read_only: bool
    revision: str | None
    """The newest migration applied; ``None``: none of ours."""
    ahead_seconds: float
    """How far the server's clock is ahead of this machine's, give or take the time of a round trip."""
    connection_count: int
    max_connections: int
    """For those who are not superusers."""
    services: frozenset[str]
    """Application names of Holdfast's processes with a session on this database, such as ``holdfast-processor``."""
    unserved: list[str] = field(default_factory=list)
    """Types of events that wait, and that no processor said it serves within the last minute."""
    oldest_due_seconds: float = 0.0
    """For how long the oldest due event has been waiting for a processor."""


def look_at_database(url: str, *, known_revision: str) -> DatabaseFacts:
    """Ask a database what it is and who works on it. Writes nothing.

    Args:
        known_revision: the oldest schema whose events can be asked for; of an older one only the rest is told.

    Raises:
        ConfigurationError: the address is none.
        DatabaseUnavailable, StatementTooSlow: as :meth:`Database.transaction`.
        DatabaseUnsuitable: it is reached by way of a pooler that has no transactions.
    """
    database = Database(url, application_name="holdfast-doctor", pool_size=1, statement_timeout_seconds=5)
    try:
        return database.call(_look, known_revision)
    except DatabaseUnavailable as exc:
        if not _answers_alone(database):
            raise
        raise DatabaseUnsuitable("single statements are answered, transactions are cut off: statement pooling") from exc
    finally:
        database.close()


def _answers_alone(database: Database) -> bool:
    """Whether a statement outside of a transaction is answered. A pooler in statement mode closes the connection at a BEGIN,
    and its reason is lost on the way.
    """
    try:
        return database.look("SELECT 1") == (1,)
    except DatabaseUnavailable:
        return False


def _look(session: Session, known_revision: str) -> DatabaseFacts:
    began = time.time()
    server = session.execute(_SERVER).one()
    middle = (began + time.time()) / 2
    sessions = session.execute(_SESSIONS).all()
    revision = applied_revision(session)
    has_events = revision is not None and revision >= known_revision
    waiting = unserved_types(session, limit=MOST_TYPES) if has_events else []
    return DatabaseFacts(
        encoding=server.encoding,
        server_version=server.version,
        is_read_only=server.is_read_only,
        revision=revision,
        ahead_seconds=float(server.now) - middle,
        connection_count=sum(row.sessions for row in sessions),
        max_connections=server.max_connections,
        services=frozenset(row.name for row in sessions if row.is_here and row.name.startswith("holdfast-")),
        unserved=[route_text(each) for each in waiting if not is_served_elsewhere(session, each)],
        oldest_due_seconds=oldest_due_age_seconds(session) if has_events else 0.0,
    )
