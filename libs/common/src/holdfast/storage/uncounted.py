"""Members of groups that have ended and were not counted: a processor of the release before does not count any.

A pass looks at the open groups in the order of their ids, a few at a time, so that it is cheap while there are many and
nearly free while there are none.
"""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from holdfast.domain.state import State
from holdfast.storage.events import Recorded
from holdfast.storage.groups import Ended, count_ended, take_completed
from holdfast.storage.statements import statement

__all__ = ["START", "Counted", "count_uncounted"]

START = UUID(int=0)
"""Where a pass begins."""

_OPEN_GROUPS = text("""
-- Parameters: after, an id; limit. Locked before their members are read: who counts a member at this moment is waited for by
-- nobody, and the group is looked at in the next pass.
SELECT id FROM event_group WHERE completed_at IS NULL AND id > :after ORDER BY id LIMIT :limit
FOR NO KEY UPDATE SKIP LOCKED
""")

_LAST = text("""
-- Parameters: as above. Where the look ends, locked groups included; NULL: there is none any more.
SELECT id FROM (SELECT id FROM event_group WHERE completed_at IS NULL AND id > :after ORDER BY id LIMIT :limit) g
ORDER BY id DESC LIMIT 1
""")

_UNCOUNTED = statement("""
-- Parameters: group_ids, locked. A member's state and its outcome are committed together, so one that has ended and has no
-- outcome was not counted.
SELECT m.event_id, m.group_id, s.state FROM event_group_member m
CROSS JOIN LATERAL (SELECT state FROM processing_state WHERE event_id = m.event_id OFFSET 0) s
WHERE m.group_id = ANY (:group_ids) AND m.outcome IS NULL AND s.state IN {FINISHED}
ORDER BY m.event_id
""")


@dataclass(frozen=True, slots=True)
class Counted:
    """``members``: how many were counted. ``completed``: the events that follow groups, to be told after the commit.

    ``last_id``: where to go on; ``None`` at the end of a pass.
    """

    members: int
    completed: list[Recorded]
    last_id: UUID | None


def count_uncounted(session: Session, *, after: UUID, limit: int) -> Counted:
    """Count the members that have ended of up to ``limit`` open groups, and complete those of which none is open."""
    where = {"after": after, "limit": limit}
    last_id = session.scalar(_LAST, where)
    if last_id is None:
        return Counted(0, [], None)
    group_ids = list(session.scalars(_OPEN_GROUPS, where))
    rows = session.execute(_UNCOUNTED, {"group_ids": group_ids}).all() if group_ids else []
    if rows:
        count_ended(session, [Ended(row.event_id, row.group_id, State(row.state)) for row in rows])
    return Counted(len(rows), take_completed(session), last_id)
