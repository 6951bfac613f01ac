"""How much is waiting, and for how long."""

from typing import NamedTuple

from sqlalchemy.orm import Session

from holdfast.domain.state import State
from holdfast.storage.lanes import ITS_TURN
from holdfast.storage.statements import statement

__all__ = ["Backlog", "backlog_of", "oldest_due_age_seconds", "open_events"]

_OPEN = statement("""
-- One count for each partial index that has all of its rows and no others: no index has all open events.
SELECT (SELECT count(*) FROM processing_state WHERE state IN {CLAIMABLE}) AS claimable,
       (SELECT count(*) FROM processing_state WHERE state = {FAILED}) AS failed,
       (SELECT count(*) FROM processing_state WHERE state = {PROCESSING}) AS processing
""")

_OLDEST_DUE = statement("""
-- One that has a predecessor in its lane waits for that, not for a processor: a subject whose first event is tried again
-- for an hour must not look like an hour's backlog. Those that processors have met have stepped aside and are not read.
-- Parameters: with_suspects.
SELECT extract(epoch FROM now() - s.available_at) FROM processing_state s
WHERE s.state IN {CLAIMABLE} AND s.available_at <= now() AND (:with_suspects OR s.crashes = 0)
  AND {turn}
ORDER BY s.available_at LIMIT 1
""", turn=ITS_TURN)  # fmt: skip


_OLDEST_DUE_OF = statement("""
-- One look-up for each pool and priority. Suspects, which wait for one another, are left out. Parameters: tenant.
WITH RECURSIVE pools AS (
    (SELECT pool FROM processing_state WHERE waiting_since IS NULL AND state IN {CLAIMABLE} ORDER BY pool LIMIT 1)
    UNION ALL
    SELECT (SELECT n.pool FROM processing_state n WHERE n.pool > p.pool AND n.waiting_since IS NULL
            AND n.state IN {CLAIMABLE} ORDER BY n.pool LIMIT 1)
    FROM pools p WHERE p.pool IS NOT NULL
)
SELECT coalesce(max(CAST(extract(epoch FROM now() - o.available_at) AS float8)), 0) AS age_seconds,
       (SELECT backlog_seconds FROM tenant WHERE name = :tenant) AS limit_seconds
FROM (SELECT pool FROM pools WHERE pool IS NOT NULL LIMIT 100) p CROSS JOIN generate_series(0, 9) AS priority
CROSS JOIN LATERAL (
    SELECT s.available_at FROM processing_state s
    WHERE (s.pool, s.tenant_name, s.priority, s.available_at) >= (p.pool, :tenant, CAST(priority AS smallint), '-infinity')
      AND (s.pool, s.tenant_name, s.priority, s.available_at) <= (p.pool, :tenant, CAST(priority AS smallint), now())
      AND s.waiting_since IS NULL AND s.state IN {CLAIMABLE} AND s.crashes = 0 AND {turn}
    ORDER BY s.pool, s.tenant_name, s.priority, s.available_at LIMIT 1) o
""", turn=ITS_TURN)  # fmt: skip


class Backlog(NamedTuple):
    """Of one tenant. ``age_seconds``: for how long its oldest due event has been waiting for a processor; 0 when none is.
    ``limit_seconds``: how old it may be, if that was set for the tenant.
    """

    age_seconds: float
    limit_seconds: float | None = None


def backlog_of(session: Session, tenant: str) -> Backlog:
    """What is to be compared before events of a tenant are accepted."""
    row = session.execute(_OLDEST_DUE_OF, {"tenant": tenant}).one()
    return Backlog(float(row.age_seconds), row.limit_seconds)


def open_events(session: Session) -> dict[State, int]:
    """How many events are in each open state."""
    row = session.execute(_OPEN).one()
    return {
        State.FAILED: row.failed,
        State.PROCESSING: row.processing,
        State.QUEUED: row.claimable - row.failed,
    }


def oldest_due_age_seconds(session: Session, *, with_suspects: bool = True) -> float:
    """For how long the oldest due event has been waiting for a processor; 0 when none is.

    Suspects, which were with a lost worker, wait for one another. However long that is, new events do not add to it.
    """
    return float(session.scalar(_OLDEST_DUE, {"with_suspects": with_suspects}) or 0.0)
