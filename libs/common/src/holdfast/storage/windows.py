"""Recording events of which only the last of a key is to run (debounce), or only the first (unique). See ADR 0055.

Every transaction locks in one order: the events that it settles, then keys, sorted, then the groups of events that may be
replaced, sorted, then identities. It waits for no lock of an event that may be replaced: somebody else has that for moments
only, or is claiming the event because it is due, and then it is not replaced any more. So transactions wait for each other
and never in a circle.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from holdfast.domain.event import NewEvent
from holdfast.domain.transitions import Transition
from holdfast.domain.transitions import supersede as superseding
from holdfast.domain.update import Update
from holdfast.domain.window import Kind, window_faults, window_of
from holdfast.storage import events, lifecycle, superseded
from holdfast.storage.events import Recorded
from holdfast.storage.groups import take_completed
from holdfast.storage.statements import statement
from holdfast.storage.updates import update_of

__all__ = ["Kept", "delete_ended", "forget", "lock", "record", "supersede"]

TRIES = 50
NAP_SECONDS = 0.01
"""How often, and how long apart, a waiting event's row is tried that somebody else has locked."""

_LOCK = text("""
-- Parameters: windows, JSON array of {id, tenant, kind}. Sorted, so that transactions with the same keys wait for each other
-- instead of deadlocking. An update that changes nothing locks a row and returns its newest version.
INSERT INTO event_window (id, tenant, kind, until)
SELECT id, tenant, kind, '-infinity' FROM jsonb_to_recordset(CAST(:windows AS jsonb)) AS w(id uuid, tenant text, kind text)
ORDER BY id
ON CONFLICT (id) DO UPDATE SET until = event_window.until
RETURNING id, kind, event_id, since, until
""")

_LOCK_ENDING = text("""
-- Parameters: event_ids.
SELECT event_id FROM processing_state WHERE event_id = ANY (:event_ids) ORDER BY event_id FOR NO KEY UPDATE
""")

_LOCK_GROUPS = text("""
-- Parameters: event_ids, of which members may end in this transaction.
SELECT g.id FROM event_group g
WHERE g.id = ANY (ARRAY(SELECT s.group_id FROM processing_state s WHERE s.event_id = ANY (:event_ids)
                        AND s.group_id IS NOT NULL))
ORDER BY g.id FOR NO KEY UPDATE
""")

_LOOK = statement("""
-- A statement of its own, after the keys are locked: its snapshot and its clock are later than what others did to them.
-- Parameters: event_ids, events in windows; identities, JSON array of {{id, tenant, source, ce_id}}. "locked": those that
-- wait untouched and are not due, locked; "missed": those that wait, but somebody else has locked.
WITH waiting AS (
    SELECT s.event_id FROM processing_state s
    WHERE s.event_id = ANY (:event_ids) AND s.state || '' = {QUEUED} AND s.version = 1
      AND s.available_at > statement_timestamp()
), locked AS MATERIALIZED (
    SELECT s.event_id FROM processing_state s
    WHERE s.event_id = ANY (:event_ids) AND s.state || '' = {QUEUED} AND s.version = 1
      AND s.available_at > statement_timestamp()
    FOR NO KEY UPDATE SKIP LOCKED
)
SELECT statement_timestamp() AS now, ARRAY(SELECT event_id FROM locked) AS locked,
       EXISTS (SELECT FROM waiting WHERE event_id NOT IN (SELECT event_id FROM locked)) AS is_any_missed,
       ARRAY(SELECT r.id
             FROM jsonb_to_recordset(CAST(:identities AS jsonb)) AS r(id uuid, tenant text, source text, ce_id text)
             JOIN event e USING (tenant, source, ce_id)) AS known
""")

_NAP = text("SELECT pg_sleep(:seconds)")

_FIRST = text("""
-- Parameters: event_ids. Where the first events of unique windows stand.
SELECT e.id AS event_id, e.tenant, e.type, e.audience, s.state, s.version, s.attempt, e.received_at AS at,
       CAST('{}' AS jsonb) AS detail
FROM event e JOIN processing_state s ON s.event_id = e.id WHERE e.id = ANY (:event_ids)
""")

_SAVE = text("""
-- Parameters: windows, JSON array of {id, event_id, since, until}; this transaction has locked them.
UPDATE event_window w SET event_id = r.event_id, since = r.since, until = r.until
FROM jsonb_to_recordset(CAST(:windows AS jsonb)) AS r(id uuid, event_id uuid, since timestamptz, until timestamptz)
WHERE w.id = r.id
""")

_DELETE_ENDED = text("""
-- Parameters: limit. A key that somebody uses at this moment is skipped.
DELETE FROM event_window WHERE id = ANY (ARRAY(
    SELECT id FROM event_window WHERE until < now() ORDER BY until LIMIT :limit FOR UPDATE SKIP LOCKED))
""")

_FORGET = text("""
-- Parameters: window_ids, event_ids. A key that somebody uses at this moment is skipped: its window ends by itself.
DELETE FROM event_window WHERE id = ANY (ARRAY(
    SELECT id FROM event_window WHERE id = ANY (CAST(:window_ids AS uuid[])) AND event_id = ANY (CAST(:event_ids AS uuid[]))
    ORDER BY id FOR UPDATE SKIP LOCKED))
""")


class Kept(NamedTuple):
    """``recorded``: as :func:`~holdfast.storage.events.record` answers. ``superseding``: for :func:`supersede`."""

    recorded: list[Recorded]
    superseding: Sequence[Transition] = ()


@dataclass(slots=True)
class _Plan:
    """What becomes of events that ask for windows, decided while their keys are locked."""

    now: datetime
    rows: Mapping[UUID, Row[Any]]
    locked: frozenset[UUID]
    due: dict[UUID, datetime] = field(default_factory=dict)
    """When each debounced event is due."""
    debounced: dict[UUID, list[NewEvent]] = field(default_factory=dict)
    """By window, in their order."""
    first: dict[UUID, NewEvent | Update] = field(default_factory=dict)
    """By window, the event of which others are duplicates."""
    until: dict[UUID, datetime] = field(default_factory=dict)
    repeats: dict[UUID, UUID] = field(default_factory=dict)
    """The window of each event that is a duplicate by its key."""

    def since(self, window: UUID) -> datetime:
        """When the first event came of those that wait, or were replaced."""
        row = self.rows[window]
        return row.since if row.event_id in self.locked else self.now

    def add(self, event: NewEvent) -> None:
        window = _window_id(event)
        asked = event.window
        if asked is not None and asked.kind is Kind.DEBOUNCE:
            self.debounced.setdefault(window, []).append(event)
            self.due[event.id] = asked.due_at(since=self.since(window), now=self.now)
        elif window in self.first:
            self.repeats[event.id] = window
        elif asked is not None:
            self.first[window] = event
            self.until[window] = asked.until(self.now)


def record(session: Session, new: Sequence[NewEvent], *, grace_seconds: float) -> Kept:
    """Record events as :func:`holdfast.storage.events.record` does, with regard to their windows.

    An event whose identity is there already changes nothing about a window. Events that were replaced are still to be ended,
    by :func:`supersede` in the same transaction.
    """
    if all(event.window is None for event in new):
        return Kept(events.record(session, new, grace_seconds=grace_seconds))
    plan = _plan(session, [event for event in new if event.window is not None])
    kept = [_dated(event, plan) for event in new if event.id not in plan.repeats]
    recorded = events.record(session, kept, grace_seconds=grace_seconds) if kept else []
    by_id = {event.id: each for event, each in zip(kept, recorded, strict=True)}
    transitions = _save(session, plan, by_id)
    return Kept([by_id[event.id] if event.id in by_id else _repeat(event, plan, by_id) for event in new], transitions)


def supersede(session: Session, transitions: Sequence[Transition]) -> list[Recorded]:
    """End the events that were replaced; what is to be told after the commit, events of groups that end with them included.
    The commit counts them.

    Groups that are made in this transaction have to be recorded before.
    """
    if not transitions:
        return []
    ended = [Recorded(update, is_superseded=True) for update in lifecycle.apply(session, transitions)]
    superseded.count(session, len(ended))
    return [*ended, *take_completed(session)]


def lock(session: Session, new: Iterable[NewEvent], *, ending: Iterable[UUID] = ()) -> Mapping[UUID, Row[Any]]:
    """Lock the keys of these events, and the groups of events that they may replace; by window, what is known of it.

    ``ending``: events that will end in this transaction too, which have to be locked before keys are.
    """
    windows = {
        str(_window_id(event)): {"tenant": event.tenant, "kind": event.window.kind} for event in new if event.window
    }
    if not windows:
        return {}
    if settled := list(ending):
        session.execute(_LOCK_ENDING, {"event_ids": settled})
    listed = [{"id": id_, **windows[id_]} for id_ in sorted(windows)]
    rows = {row.id: row for row in session.execute(_LOCK, {"windows": json.dumps(listed)})}
    replaced = [row.event_id for row in rows.values() if row.kind == Kind.DEBOUNCE and row.event_id is not None]
    if replaced:
        session.execute(_LOCK_GROUPS, {"event_ids": [*replaced, *settled]})
    return rows


def delete_ended(session: Session, *, limit: int) -> int:
    """Forget up to ``limit`` windows that have ended; returns how many."""
    result: Any = session.execute(_DELETE_ENDED, {"limit": limit})
    return int(result.rowcount)


def forget(session: Session, gone: Sequence[Row[Any]]) -> None:
    """Forget the windows that events were in which are gone. Rows with ``id``, ``tenant``, ``type``, ``subject`` and
    ``extensions``, from which the key is found again.
    """
    window_ids = set()
    for row in gone:
        present = row.extensions | {"subject": row.subject}
        # One that was recorded by a release which knew no windows may have anything there.
        if not list(window_faults(present)) and (asked := window_of(present)):
            window_ids.add(asked.id_for(row.tenant, row.type))
    if window_ids:
        session.execute(_FORGET, {"window_ids": sorted(window_ids), "event_ids": [row.id for row in gone]})


def _plan(session: Session, asking: Sequence[NewEvent]) -> _Plan:
    rows = lock(session, asking)
    looked = _look(session, rows, asking)
    plan = _Plan(looked.now, rows, frozenset(looked.locked))
    _find_first(session, plan)
    # An identity that is there already, or comes twice, is for events.record to judge.
    seen = {(event.tenant, event.source, event.ce_id) for event in asking if event.id in set(looked.known)}
    for event in asking:
        identity = (event.tenant, event.source, event.ce_id)
        if identity not in seen:
            seen.add(identity)
            plan.add(event)
    return plan


def _look(session: Session, rows: Mapping[UUID, Row[Any]], asking: Sequence[NewEvent]) -> Row[Any]:
    identities = [
        {"id": str(event.id), "tenant": event.tenant, "source": event.source, "ce_id": event.ce_id} for event in asking
    ]
    parameters = {
        "event_ids": [row.event_id for row in rows.values() if row.kind == Kind.DEBOUNCE and row.event_id is not None],
        "identities": json.dumps(identities),
    }
    for _ in range(TRIES):
        looked = session.execute(_LOOK, parameters).one()
        if not looked.is_any_missed:
            break
        session.execute(_NAP, {"seconds": NAP_SECONDS})
    return looked


def _find_first(session: Session, plan: _Plan) -> None:
    lasting = {
        row.event_id: row
        for row in plan.rows.values()
        if row.kind == Kind.UNIQUE and row.event_id is not None and row.until > plan.now
    }
    if lasting:
        for found in session.execute(_FIRST, {"event_ids": list(lasting)}):
            row = lasting[found.event_id]
            plan.first[row.id], plan.until[row.id] = update_of(found), row.until


def _dated(event: NewEvent, plan: _Plan) -> NewEvent:
    due_at = plan.due.get(event.id)
    return event if due_at is None or due_at <= plan.now else replace(event, deliver_at=due_at)


def _save(session: Session, plan: _Plan, by_id: Mapping[UUID, Recorded]) -> list[Transition]:
    """Write down what is in the windows now; the transitions of the events that were replaced."""
    changed: list[dict[str, str]] = []
    transitions: list[Transition] = []
    for window, first in plan.first.items():
        if isinstance(first, NewEvent):
            changed.append(_row(window, by_id[first.id].update.event_id, plan.now, plan.until[window]))
    for window, debounced in plan.debounced.items():
        new = [event for event in debounced if by_id[event.id].is_new]
        if not new:
            continue
        *replaced, last = [event.id for event in new]
        before = plan.rows[window].event_id
        transitions += [superseding(each, last) for each in ([before] if before in plan.locked else []) + replaced]
        changed.append(_row(window, last, plan.since(window), plan.due[last]))
    if changed:
        session.execute(_SAVE, {"windows": json.dumps(changed)})
    return transitions


def _row(window: UUID, event_id: UUID, since: datetime, until: datetime) -> dict[str, str]:
    return {"id": str(window), "event_id": str(event_id), "since": since.isoformat(), "until": until.isoformat()}


def _repeat(event: NewEvent, plan: _Plan, by_id: Mapping[UUID, Recorded]) -> Recorded:
    window = plan.repeats[event.id]
    first = plan.first[window]
    update = by_id[first.id].update if isinstance(first, NewEvent) else first
    return Recorded(update, is_duplicate=True, unique_until=plan.until[window])


def _window_id(event: NewEvent) -> UUID:
    if event.window is None:
        raise ValueError("an event without a window has no key")
    return event.window.id_for(event.tenant, event.type)
