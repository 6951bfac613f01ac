"""What an operator does to one event: replay it, or give it up. Every action is written to the audit log."""

from dataclasses import dataclass, replace
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from holdfast.domain.state import State
from holdfast.domain.transitions import Transition, discard, replay
from holdfast.domain.update import Update
from holdfast.storage.audit import Actor, note
from holdfast.storage.copies import record_copy
from holdfast.storage.lifecycle import apply
from holdfast.storage.updates import update_of

__all__ = ["REPLAYABLE", "Acted", "discard_event", "replay_event"]

REPLAYABLE = frozenset({State.DEAD, State.DISCARDED, State.PROCESSED})
"""The finished states. An open event is going to run anyway."""

_STATE = text("""
SELECT s.state, s.version FROM event e JOIN processing_state s ON s.event_id = e.id
WHERE e.id = :event_id AND e.tenant = :tenant
""")

_EARLIER = text("""
-- A move with this request's key, and where the event stands by now. Copies have their key in the copy's identity.
SELECT e.id AS event_id, e.tenant, e.type, e.audience, s.state, s.version, s.attempt, statement_timestamp() AS at,
       CAST('{}' AS jsonb) AS detail
FROM event e JOIN processing_state s ON s.event_id = e.id
WHERE e.id = :event_id AND e.tenant = :tenant AND EXISTS (
    SELECT FROM audit_log a
    WHERE a.event_id = e.id AND a.action = :action AND a.detail->>'request' = :request AND NOT a.detail ? 'new_event_id')
""")


@dataclass(frozen=True, slots=True)
class Acted:
    """``update`` is the event's new state, or the new event's first one; ``None``: its ``state`` does not allow that.

    ``is_repeated``: the same request was carried out before, and nothing was done now; ``update`` is then where the event
    stands. ``is_conflict``: a request with the same key was carried out with other data.
    """

    state: State
    update: Update | None = None
    is_repeated: bool = False
    is_conflict: bool = False


def replay_event(
    session: Session, actor: Actor, event_id: UUID, *, request: str, grace_seconds: float, data_json: str | None = None
) -> Acted | None:
    """Queue a dead or discarded event again, or record a copy of a processed one; ``None``: there is no such event.

    ``request`` names the wish, which is carried out once. ``data_json`` replaces the copy's data, and does not fit an event
    that is queued again, since events are immutable: then nothing is done, as for an open event.
    """
    found = _find(session, actor, event_id)
    if found is None:
        return None
    state, version = found
    # After the state: an event that was dead when this was asked first may be processed by now, and must not be copied.
    earlier = _earlier(session, actor, "replay", event_id, request)
    if earlier is not None:
        return replace(earlier, is_conflict=data_json is not None)
    if state is State.PROCESSED:
        return _copy(session, actor, event_id, request, grace_seconds, data_json)
    move = replace(replay(event_id), expected_version=version)
    if data_json is not None or state not in move.from_states:
        return Acted(state)
    return _move(session, actor, "replay", move, state, request) or replay_event(
        session, actor, event_id, request=request, grace_seconds=grace_seconds
    )


def discard_event(session: Session, actor: Actor, event_id: UUID, *, request: str) -> Acted | None:
    """Give up a queued, failed or dead event, once for each ``request``; ``None``: there is no such event."""
    found = _find(session, actor, event_id)
    if found is None:
        return None
    state, version = found
    if earlier := _earlier(session, actor, "discard", event_id, request):
        return earlier
    move = replace(discard(event_id), expected_version=version)
    if state not in move.from_states:
        return Acted(state)
    return _move(session, actor, "discard", move, state, request) or discard_event(
        session, actor, event_id, request=request
    )


def _move(
    session: Session, actor: Actor, action: str, transition: Transition, state: State, request: str
) -> Acted | None:
    """``None``: the event has moved since it was looked at, and all has to be asked again.

    A request that was held up between its statements must not be carried out after its own repetition.
    """
    moved = apply(session, [transition])
    if not moved:
        return None
    detail = {"from_state": state, "request": request}
    note(session, actor, action, event_id=transition.event_id, detail=detail)
    return Acted(moved[0].state, moved[0])


def _earlier(session: Session, actor: Actor, action: str, event_id: UUID, request: str) -> Acted | None:
    """What this request did when it was carried out before."""
    parameters = {"event_id": event_id, "tenant": actor.tenant, "action": action, "request": request}
    row = session.execute(_EARLIER, parameters).one_or_none()
    if row is None:
        return None
    update = update_of(row)
    return Acted(update.state, update, is_repeated=True)


def _copy(
    session: Session, actor: Actor, event_id: UUID, request: str, grace_seconds: float, data_json: str | None
) -> Acted:
    recorded = record_copy(session, event_id, request=request, grace_seconds=grace_seconds, data_json=data_json)
    update = recorded.update
    if not (recorded.is_duplicate or recorded.is_conflict):
        detail = {
            "from_state": State.PROCESSED,
            "request": request,
            "new_event_id": str(update.event_id),
            "is_edited": data_json is not None,
        }
        note(session, actor, "replay", event_id=event_id, detail=detail)
    return Acted(
        update.state, update, is_repeated=recorded.is_duplicate, is_conflict=recorded.is_conflict
    )  # fmt: skip


def _find(session: Session, actor: Actor, event_id: UUID) -> tuple[State, int] | None:
    row = session.execute(_STATE, {"event_id": event_id, "tenant": actor.tenant}).one_or_none()
    return None if row is None else (State(row.state), row.version)
