"""What a page of an erasure does to its events, and to what other tables know of them.

It locks in one order with all others: replays that are under way, events, groups, identities, windows. It waits for no event
that somebody has: that one has its turn in the next walk.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from holdfast.domain.state import CLAIMABLE, State
from holdfast.domain.transitions import discard
from holdfast.domain.update import Update
from holdfast.storage import windows
from holdfast.storage.forgetting import Ripe, drop, mark
from holdfast.storage.lifecycle import apply
from holdfast.storage.replays import IS_RUNNING

__all__ = ["drop_ended", "give_up"]

_ENDED = frozenset({State.PROCESSED, State.DISCARDED})
"""In which events are dropped. What waits or is dead is discarded first, so that counters and clients learn of it."""

_GIVEN_UP = CLAIMABLE | {State.DEAD}

_LOCK_REPLAYS = text(f"""
SELECT id FROM replay_job WHERE tenant = :tenant AND {IS_RUNNING} ORDER BY id FOR NO KEY UPDATE
""")  # noqa: S608

_SKIP_ITEMS = text("""
-- Parameters: job_ids, of replays and discards that this transaction has locked; event_ids.
WITH gone AS (
    DELETE FROM replay_item WHERE job_id = ANY (CAST(:job_ids AS uuid[])) AND event_id = ANY (CAST(:event_ids AS uuid[]))
       AND done_at IS NULL
    RETURNING job_id
)
UPDATE replay_job j SET skipped = j.skipped + g.items
FROM (SELECT job_id, count(*) AS items FROM gone GROUP BY job_id) g WHERE j.id = g.job_id
""")

_FORGET_ITEMS = text("""
DELETE FROM replay_item i USING replay_job j
WHERE j.tenant = :tenant AND i.job_id = j.id AND i.event_id = ANY (CAST(:event_ids AS uuid[]))
""")

_LOCK_WAITING = text("""
SELECT event_id FROM processing_state
WHERE event_id = ANY (CAST(:event_ids AS uuid[])) AND state = ANY (CAST(:states AS text[]))
ORDER BY event_id FOR NO KEY UPDATE SKIP LOCKED
""")

_DELETE_GROUPS = text("""
DELETE FROM event_group WHERE id = ANY (ARRAY(
    SELECT id FROM event_group WHERE parent_id = ANY (CAST(:event_ids AS uuid[])) ORDER BY id FOR UPDATE))
""")


def give_up(session: Session, page: Sequence[Row[Any]], *, tenant: str, with_groups: bool) -> list[Update]:
    """Discard those that wait or are dead; their updates.

    What replays have yet to do with these events counts as skipped: it would be further events, with the data of those that
    are erased. ``with_groups``: those that the events made go before their members end, so that no event follows them either.
    """
    event_ids = [row.id for row in page]
    if not event_ids:
        return []
    if replays := session.scalars(_LOCK_REPLAYS, {"tenant": tenant}).all():
        session.execute(_SKIP_ITEMS, {"job_ids": list(replays), "event_ids": event_ids})
    named = {"event_ids": [row.id for row in page if row.state in _GIVEN_UP], "states": sorted(_GIVEN_UP)}
    waiting = session.scalars(_LOCK_WAITING, named).all()
    if with_groups:
        session.execute(_DELETE_GROUPS, {"event_ids": event_ids})
    return apply(session, [discard(event_id) for event_id in waiting]) if waiting else []


def drop_ended(
    session: Session, page: Sequence[Row[Any]], *, tenant: str, dedupe_seconds: float, settle_seconds: float
) -> Sequence[UUID]:
    """Write the identities of those down that have ended, and drop those for which that was done ``settle_seconds`` ago, with
    what replays and windows know of them; their ids.

    ``page`` as :func:`holdfast.storage.windows.forget` takes it.
    """
    ripe = Ripe(tenant=tenant, states=_ENDED, ended_for_seconds=0, dedupe_seconds=dedupe_seconds)
    event_ids = [row.id for row in page]
    mark(session, event_ids, ripe)
    gone = frozenset(drop(session, event_ids, ripe, settle_seconds=settle_seconds).event_ids)
    if gone:
        session.execute(_FORGET_ITEMS, {"tenant": tenant, "event_ids": list(gone)})
        windows.forget(session, [row for row in page if row.id in gone])
    return list(gone)
