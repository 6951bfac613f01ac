"""What readiness asks PostgreSQL: whether work could be done now, not only whether somebody answers."""

from sqlalchemy import text
from sqlalchemy.orm import Session

from holdfast.domain.errors import DatabaseUnavailable
from holdfast.storage.schema import check_revision
from holdfast.storage.sealing import check_keys

__all__ = ["check_work"]

PROBE_MS = 1500
"""Below the two seconds in which readiness answers."""

# ROW EXCLUSIVE is what every INSERT and UPDATE takes. It is held for one round trip and writes nothing.
_LOCK = (
    "LOCK TABLE event, processing_state, event_update, processed_event_log, attempt_error IN ROW EXCLUSIVE MODE",
    "LOCK TABLE api_key IN ACCESS SHARE MODE",
)


def check_work(session: Session) -> None:
    """Make sure that the schema is new enough, that the database takes writes, that no table of ours is locked,
    and that sealed data opens.

    Raises:
        SchemaOutdated: with the command that helps.
        DatabaseUnavailable: it is read-only.
        KeyMissing: data is sealed under a key that this process lacks.
        StatementTooSlow: at the end of the transaction's block: a table is locked, or the server is too slow to work with.
    """
    session.execute(text(f"SET LOCAL statement_timeout = {PROBE_MS}"))
    check_revision(session)
    if session.scalar(text("SHOW transaction_read_only")) == "on":
        raise DatabaseUnavailable("PostgreSQL takes no writes: it is a standby or set to read-only")
    for statement in _LOCK:
        session.execute(text(statement))
    check_keys(session)
