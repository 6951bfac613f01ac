"""Whether sweeps would find anything: looks that lock and write nothing, each one statement for several sweeps (ADR 0035).

They say "perhaps" for rows that somebody has locked, and the sweep then finds nothing. Each one reads the first entry of the
index that the sweep itself reads: ``ORDER BY`` with ``LIMIT`` in a scalar subquery, since ``EXISTS`` would be planned as if a
match were near anywhere in the table, and read all of a large history where none is.
"""

from dataclasses import dataclass

from holdfast.storage.aside import HAS_LINES
from holdfast.storage.cancels import IS_REQUESTED
from holdfast.storage.counting import COUNT_AFTER_SECONDS, IS_COUNTING_DUE
from holdfast.storage.database import Database
from holdfast.storage.erasures import IS_ERASURE_DUE
from holdfast.storage.looking import look as _look
from holdfast.storage.outbox import IS_WINDOW_DUE
from holdfast.storage.replays import IS_RUNNING
from holdfast.storage.retention import IS_RETENTION_DUE
from holdfast.storage.schedules import IS_SCHEDULE_DUE
from holdfast.storage.statements import render

__all__ = ["Due", "Look", "due_sweeps", "is_any_claimable", "look_after", "newest_revocation"]


_IS_EXPIRED = render("""
coalesce((SELECT lease_expires_at FROM processing_state WHERE state = {PROCESSING}
          ORDER BY lease_expires_at LIMIT 1) < now() - make_interval(secs => :expired_for_seconds), false)
""").strip()

_IS_WAITING_FOR_A_TURN = render("""
(SELECT lane_key FROM processing_state
 WHERE waiting_since IS NOT NULL AND unserved_type IS NULL AND state IN {CLAIMABLE}
 ORDER BY lane_key LIMIT 1) IS NOT NULL
""").strip()

_IS_WAITING_FOR_A_HANDLER = render("""
(SELECT unserved_type FROM processing_state
 WHERE unserved_type > '' AND unserved_type IS NOT NULL AND state IN {CLAIMABLE}
 ORDER BY unserved_type LIMIT 1) IS NOT NULL
""").strip()

_DUE_SWEEPS = _look(
    """
-- Parameters: after_seconds, see outbox.next_page; expired_for_seconds; count_after_seconds.
SELECT {expired} OR {cancels} AS recover,
       coalesce((SELECT next_dispatch_at FROM processing_state WHERE state IN {CLAIMABLE}
                 ORDER BY next_dispatch_at LIMIT 1) <= now(), false) OR {turn} AS redispatch,
       ({window}) AS relay,
       (SELECT next_at FROM replay_job WHERE {running} AND next_at <= now()
        ORDER BY next_at LIMIT 1) IS NOT NULL AS replay,
       ({counting}) AS count,
       (SELECT next_at FROM schedule WHERE {scheduled} ORDER BY next_at LIMIT 1) IS NOT NULL AS schedules,
       (SELECT next_at FROM retention_walk WHERE {retained} ORDER BY next_at LIMIT 1) IS NOT NULL AS retain,
       (SELECT next_at FROM erasure_job WHERE {erased} ORDER BY next_at LIMIT 1) IS NOT NULL AS erase
""",
    expired=_IS_EXPIRED, turn=_IS_WAITING_FOR_A_TURN, window=IS_WINDOW_DUE, counting=IS_COUNTING_DUE,
    running=IS_RUNNING, scheduled=IS_SCHEDULE_DUE, retained=IS_RETENTION_DUE, erased=IS_ERASURE_DUE,
    cancels=IS_REQUESTED,
)  # fmt: skip

_IS_CLAIMABLE_BY = """
-- Parameters: overdue_seconds.
SELECT (SELECT available_at FROM processing_state
        WHERE state IN {CLAIMABLE} AND available_at <= now() - make_interval(secs => :overdue_seconds) AND {crashes}
        ORDER BY available_at LIMIT 1) IS NOT NULL OR {handler} OR {lines}
"""

_IS_CLAIMABLE = {
    is_suspect: _look(_IS_CLAIMABLE_BY, crashes=crashes, handler=_IS_WAITING_FOR_A_HANDLER, lines=HAS_LINES)
    for is_suspect, crashes in ((False, "crashes = 0"), (True, "crashes > 0"))
}
"""By ``is_suspect``."""

_LOOK_AFTER = _look(
    """
-- Parameters: expired_for_seconds; node_id.
SELECT {expired} OR {turn} OR {handler} OR {cancels}, (SELECT drain_since IS NOT NULL FROM node WHERE id = :node_id)
""",
    expired=_IS_EXPIRED, turn=_IS_WAITING_FOR_A_TURN, handler=_IS_WAITING_FOR_A_HANDLER, cancels=IS_REQUESTED,
)  # fmt: skip


_NEWEST_REVOCATION = _look("SELECT coalesce(max(seq), 0) FROM token_revocation")


@dataclass(frozen=True, slots=True)
class Due:
    """Which of maintenance's sweeps may find something. In the order of the look's columns."""

    recover: bool
    redispatch: bool
    relay: bool
    replay: bool
    count: bool = False
    schedules: bool = False
    retain: bool = False
    erase: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """Whether a lease has expired for that long, events wait for their turn or for a handler, or some are to be cancelled;
    and whether a node is drained, ``None`` for one that is not written down. In the order of the look's columns."""

    is_any_lost: bool
    is_drained: bool | None


def due_sweeps(database: Database, *, after_seconds: float, count_after_seconds: float = COUNT_AFTER_SECONDS) -> Due:
    """``after_seconds``: how long a snapshot of the outbox has to rest, see :func:`holdfast.storage.outbox.next_page`.

    ``count_after_seconds``: between two turns of counting.

    Raises:
        DatabaseUnavailable, StatementTooSlow: see :meth:`Database.look`; so do the functions below.
    """
    return Due(*database.look(
        _DUE_SWEEPS, after_seconds=after_seconds, expired_for_seconds=0.0, count_after_seconds=count_after_seconds
    ))  # fmt: skip


def is_any_claimable(database: Database, *, is_suspect: bool, overdue_seconds: float) -> bool:
    """Whether :func:`holdfast.storage.claims.claim_due` may find an event, or some wait for a handler."""
    return bool(database.look(_IS_CLAIMABLE[is_suspect], overdue_seconds=overdue_seconds)[0])


def look_after(database: Database, *, node_id: str, expired_for_seconds: float) -> Look:
    """What a processor asks every two seconds."""
    return Look(*database.look(_LOOK_AFTER, expired_for_seconds=expired_for_seconds, node_id=node_id))


def newest_revocation(database: Database) -> int:
    """The ``seq`` of the newest revocation of a live token; 0 when there was none yet."""
    return int(database.look(_NEWEST_REVOCATION)[0])
