"""Groups: events that a handler made together, and one more event when the last of them has ended.

A member counts once, with the state in which it first ends, in the transaction in which it does. The one that leaves none
open records the event of the group in that transaction too. Each locks the group's row, so that of two that end at the same
moment the second sees what the first did.
"""

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from holdfast.domain.errors import DataUnreadable
from holdfast.domain.event import NewEvent, NewGroup
from holdfast.domain.state import State
from holdfast.domain.trace import Origin
from holdfast.runtime.ids import uuid7
from holdfast.storage import events
from holdfast.storage.events import Recorded
from holdfast.storage.sealing import Purpose, sealing_of, unsealed
from holdfast.storage.statements import statement

__all__ = ["SOURCE", "Ended", "Group", "count_ended", "groups_of", "record_group", "take_completed"]

SOURCE = "/holdfast/groups"
"""Of the events of groups. Their id is the group's."""

_COMPLETED = "holdfast.completed_groups"
"""Where a session keeps the events of groups that its transaction has completed, until somebody tells of them."""

_CREATE = text("""
INSERT INTO event_group (id, tenant, parent_id, size, open, type, subject, audience, data, data_key_id)
VALUES (:id, :tenant, :parent_id, :size, :size, :type, :subject, :audience, :data, :data_key_id)
""")

_ADD_MEMBERS = text("""
INSERT INTO event_group_member (event_id, group_id) SELECT unnest(CAST(:event_ids AS uuid[])), :group_id
""")

_COUNT = statement("""
-- Parameters: ended, JSON array of {{event_id, group_id, state}}. Groups are locked in one order, so that two transactions
-- that end members of the same ones wait for each other instead of deadlocking.
WITH ended AS (
    SELECT * FROM jsonb_to_recordset(CAST(:ended AS jsonb)) AS e(event_id uuid, group_id uuid, state text)
), counted AS (
    UPDATE event_group_member m SET outcome = e.state FROM ended e
    WHERE m.event_id = e.event_id AND m.outcome IS NULL
    RETURNING m.group_id, m.outcome
), locked AS MATERIALIZED (
    SELECT g.id FROM event_group g WHERE g.id IN (SELECT group_id FROM ended) ORDER BY g.id FOR NO KEY UPDATE
), sums AS (
    SELECT group_id, count(*) AS ended, count(*) FILTER (WHERE outcome = {PROCESSED}) AS processed,
           count(*) FILTER (WHERE outcome = {DEAD}) AS dead, count(*) FILTER (WHERE outcome = {DISCARDED}) AS discarded
    FROM counted WHERE group_id IN (SELECT id FROM locked) GROUP BY group_id
)
UPDATE event_group g SET open = g.open - s.ended, processed = g.processed + s.processed, dead = g.dead + s.dead,
       discarded = g.discarded + s.discarded
FROM sums s WHERE g.id = s.group_id
RETURNING g.id, g.open
""")

_COMPLETE = text("""
-- Parameters: group_ids. Only those that nobody has completed.
UPDATE event_group g SET completed_at = statement_timestamp()
FROM event_group o LEFT JOIN event p ON p.id = o.parent_id
WHERE o.id = g.id AND g.id = ANY (:group_ids) AND g.open = 0 AND g.completed_at IS NULL
RETURNING g.*, p.trace_id, p.span_id
""")

MOST_GROUPS = 1000
"""Of one event: its handler makes no more events than these."""

_GROUPS_OF = text("SELECT * FROM event_group WHERE parent_id = :parent_id ORDER BY id LIMIT :most")


class Ended(NamedTuple):
    """A member that has come into a state in which it has ended."""

    event_id: UUID
    group_id: UUID
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """How far a group is. ``type`` is that of the event which follows. ``open`` members have not ended; the others did first
    as ``processed``, ``dead`` or ``discarded``.
    """

    id: UUID
    type: str
    size: int
    open: int
    processed: int
    dead: int
    discarded: int
    created_at: datetime
    completed_at: datetime | None


def record_group(session: Session, group: NewGroup, members: Sequence[UUID]) -> list[Recorded]:
    """Record a group, whose members are recorded in this transaction; the event of one that has none."""
    session.execute(
        _CREATE,
        {
            "id": group.id, "tenant": group.tenant, "parent_id": group.parent_id, "size": len(members), "type": group.type,
            "subject": group.subject, "audience": group.audience, **_stored_data(session, group),
        },
    )  # fmt: skip
    if not members:
        return _complete(session, [group.id])
    session.execute(_ADD_MEMBERS, {"event_ids": list(members), "group_id": group.id})
    return []


def count_ended(session: Session, ended: Sequence[Ended]) -> None:
    """Count members that have ended in this transaction, and record the events of groups of which none is open any more.

    :func:`take_completed` says which those are.
    """
    listed = [{"event_id": str(each.event_id), "group_id": str(each.group_id), "state": each.state} for each in ended]
    rows = session.execute(_COUNT, {"ended": json.dumps(listed)}).all()
    if done := [row.id for row in rows if row.open == 0]:
        session.info.setdefault(_COMPLETED, []).extend(_complete(session, done))


def take_completed(session: Session) -> list[Recorded]:
    """The events of groups that the session's transaction has completed, to be told after its commit; each once.

    Those that nobody takes are left to relay and redispatch.
    """
    taken: list[Recorded] = session.info.pop(_COMPLETED, [])
    return taken


def groups_of(session: Session, parent_id: UUID) -> list[Group]:
    """The groups that an event's handler made, in their order. Whose event it is has been asked before."""
    return [
        Group(
            id=row.id, type=row.type, size=row.size, open=row.open, processed=row.processed, dead=row.dead,
            discarded=row.discarded, created_at=row.created_at, completed_at=row.completed_at,
        )
        for row in session.execute(_GROUPS_OF, {"parent_id": parent_id, "most": MOST_GROUPS})
    ]  # fmt: skip


def _complete(session: Session, group_ids: Iterable[UUID]) -> list[Recorded]:
    rows = session.execute(_COMPLETE, {"group_ids": sorted(group_ids)}).all()
    if not rows:
        return []
    recorded = events.record(session, [_event_of(session, row) for row in rows], grace_seconds=events.GRACE_SECONDS)
    return [each for each in recorded if each.is_new]


def _stored_data(session: Session, group: NewGroup) -> dict[str, Any]:
    sealing = sealing_of(session)
    if group.data_json is None or sealing is None or not sealing.is_sealing:
        return {"data": group.data_json, "data_key_id": None}
    sealed = sealing.seal(session, _purpose(group.id, group.tenant), group.data_json.encode())
    return {"data": base64.b64encode(sealed.content).decode(), "data_key_id": sealed.key_id}


def _data_of(session: Session, row: Row[Any]) -> str:
    if row.data_key_id is None:
        return row.data or "null"
    try:
        sealed = base64.b64decode(row.data)
        return unsealed(session, _purpose(row.id, row.tenant), sealed, row.data_key_id).decode()
    except (DataUnreadable, ValueError):
        # Members must be able to end. What the handler gave along is lost, and the event says so.
        return 'null, "data_unreadable": true'


def _purpose(group_id: UUID, tenant: str) -> Purpose:
    return Purpose("event_group", group_id, tenant, is_json=True)


def _event_of(session: Session, row: Row[Any]) -> NewEvent:
    summary = {"group": str(row.id), "processed": row.processed, "dead": row.dead, "discarded": row.discarded}
    # The handler's own text: read and written again, a number might become another one.
    text_ = f'{json.dumps(summary)[:-1]}, "data": {_data_of(session, row)}}}'
    return NewEvent(
        id=uuid7(),
        tenant=row.tenant,
        source=SOURCE,
        ce_id=str(row.id),
        type=row.type,
        subject=row.subject,
        audience=row.audience,
        datacontenttype="application/json",
        data_json=text_,
        parent_id=row.parent_id,
        origin=Origin(None, None if row.trace_id is None else row.trace_id.hex, row.span_id),
    )
