"""What an operator does to one event: replay, discard or cancel it. Every action is written to the audit log.

A request has an idempotency key, and is carried out once for each key, action and event. A repetition finds the audit entry
of the first time; of a copy the key is part of the identity.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from holdfast.domain.state import CLAIMABLE, State
from holdfast.domain.transitions import Transition, discard, replay
from holdfast.domain.update import Update
from holdfast.storage import cancels
from holdfast.storage.audit import Actor, note
from holdfast.storage.copies import record_copy
from holdfast.storage.lifecycle import apply
from holdfast.storage.updates import update_of

__all__ = ["DISCARDABLE", "REPLAYABLE", "Acted", "Outcome", "cancel_event", "discard_event", "replay_event"]

REPLAYABLE = frozenset({State.DEAD, State.DISCARDED, State.PROCESSED})
"""The finished states. An open event is going to run anyway."""

DISCARDABLE = CLAIMABLE | {State.DEAD}
"""Where ``transitions.discard`` leads from: what waits, and what has failed for good."""

MAX_TRIES = 10
"""How often an event is read again that changed between being read and being moved. Each change takes a transaction of
somebody else, so more than a few in a row means that something drives the event round in circles."""

_STATE = text("""
SELECT s.state, s.version FROM event e JOIN processing_state s ON s.event_id = e.id
WHERE e.id = :event_id AND e.tenant = :tenant
""")

_STANDING = """
SELECT e.id AS event_id, e.tenant, e.type, e.audience, s.state, s.version, s.attempt, statement_timestamp() AS at,
       CAST('{}' AS jsonb) AS detail
FROM event e JOIN processing_state s ON s.event_id = e.id
WHERE e.id = :event_id AND e.tenant = :tenant
"""

_NOW = text(_STANDING)

_EARLIER = text(f"""
-- idempotency_key: of a request that moved this event before. Returns where the event stands now.
{_STANDING} AND EXISTS (
    SELECT FROM audit_log a
    WHERE a.event_id = e.id AND a.action = :action AND a.detail->>'request' = :idempotency_key
      AND NOT a.detail ? 'new_event_id')
""")


class Outcome(StrEnum):
    """How a request ended."""

    MOVED = "moved"
    """The event is in another state; ``update`` says in which."""

    COPIED = "copied"
    """A new event was recorded; ``update`` is its first one."""

    REQUESTED = "requested"
    """The event runs: its worker is to end it, unless it has ended by then; ``update`` is where it stands."""

    REPEATED = "repeated"
    """A request with this key was carried out before, and nothing was done now; ``update`` is where the event stands."""

    KEY_REUSED = "key_reused"
    """A request with this key was carried out with other data; nothing was done now."""

    NOT_EDITABLE = "not_editable"
    """Other data does not fit an event that is queued again: events are immutable."""

    NOT_ALLOWED = "not_allowed"
    """The event's state does not allow it."""

    CHANGING = "changing"
    """The event changed each time that it was to be moved. The same request may succeed later."""


@dataclass(frozen=True, slots=True)
class Acted:
    """What became of a request. ``state`` is the event's, or the copy's; ``update`` as :class:`Outcome` says."""

    outcome: Outcome
    state: State
    update: Update | None = None


@dataclass(frozen=True, slots=True)
class _Request:
    session: Session
    actor: Actor
    action: str
    event_id: UUID
    idempotency_key: str


def replay_event(
    session: Session,
    actor: Actor,
    event_id: UUID,
    *,
    idempotency_key: str,
    grace_seconds: float,
    data_json: str | None = None,
) -> Acted | None:
    """Queue a dead or discarded event again, or record a copy of a processed one; ``None``: there is no such event.

    ``data_json`` replaces the copy's data.
    """
    request = _Request(session, actor, "replay", event_id, idempotency_key)

    def act(state: State, version: int) -> Acted | None:
        if state is State.PROCESSED:
            return _copy(request, grace_seconds, data_json)
        move = replace(replay(event_id), expected_version=version)
        if state not in move.from_states:
            return Acted(Outcome.NOT_ALLOWED, state)
        return _move(request, move, state) if data_json is None else Acted(Outcome.NOT_EDITABLE, state)

    acted = _carry_out(request, act)
    if (
        acted is not None
        and acted.outcome is Outcome.REPEATED
        and data_json is not None
        and not _is_copy(acted, event_id)
    ):
        return replace(acted, outcome=Outcome.KEY_REUSED)
    return acted


def discard_event(session: Session, actor: Actor, event_id: UUID, *, idempotency_key: str) -> Acted | None:
    """Discard a queued, failed or dead event; ``None``: there is no such event."""
    request = _Request(session, actor, "discard", event_id, idempotency_key)

    def act(state: State, version: int) -> Acted | None:
        move = replace(discard(event_id), expected_version=version)
        return _move(request, move, state) if state in move.from_states else Acted(Outcome.NOT_ALLOWED, state)

    return _carry_out(request, act)


def cancel_event(session: Session, actor: Actor, event_id: UUID, *, idempotency_key: str) -> Acted | None:
    """Have an event that runs ended, and discard one that waits to run; ``None``: there is no such event.

    A request for an event that somebody is cancelling already is answered as a repetition.
    """
    request = _Request(session, actor, "cancel", event_id, idempotency_key)

    def act(state: State, version: int) -> Acted | None:
        if state is State.PROCESSING:
            return _ask(request, version)
        move = replace(
            discard(event_id), from_states=CLAIMABLE, expected_version=version, detail={"reason": "cancelled"}
        )
        return _move(request, move, state) if state in move.from_states else Acted(Outcome.NOT_ALLOWED, state)

    return _carry_out(request, act)


def _ask(request: _Request, version: int) -> Acted:
    """The event's row cannot be moved: its handler's transaction may have locked it."""
    is_first = cancels.ask(
        request.session, request.event_id, version=version, actor=request.actor.name or request.actor.key_id
    )
    if is_first:
        detail = {"from_state": State.PROCESSING, "request": request.idempotency_key}
        note(request.session, request.actor, request.action, event_id=request.event_id, detail=detail)
    parameters = {"event_id": request.event_id, "tenant": request.actor.tenant}
    update = update_of(request.session.execute(_NOW, parameters).one())
    return Acted(Outcome.REQUESTED if is_first else Outcome.REPEATED, update.state, update)


def _carry_out(request: _Request, act: Callable[[State, int], Acted | None]) -> Acted | None:
    """Read the event and act on it, again where it changed in between (``act`` returns ``None``)."""
    state = None
    for _ in range(MAX_TRIES):
        found = _find(request)
        if found is None:
            return None
        state, version = found
        # After the state: an event that was dead at the first request may be processed by now, and must not be copied.
        acted = _earlier(request) or act(state, version)
        if acted is not None:
            return acted
    return None if state is None else Acted(Outcome.CHANGING, state)


def _move(request: _Request, transition: Transition, state: State) -> Acted | None:
    """``None``: the event changed since it was read, so read it again.

    A request that was held up between its statements must not be carried out after its own repetition.
    """
    moved = apply(request.session, [transition])
    if not moved:
        return None
    detail = {"from_state": state, "request": request.idempotency_key}
    note(request.session, request.actor, request.action, event_id=request.event_id, detail=detail)
    return Acted(Outcome.MOVED, moved[0].state, moved[0])


def _earlier(request: _Request) -> Acted | None:
    """Where the event stands if this request moved it before."""
    parameters = {
        "event_id": request.event_id, "tenant": request.actor.tenant, "action": request.action,
        "idempotency_key": request.idempotency_key,
    }  # fmt: skip
    row = request.session.execute(_EARLIER, parameters).one_or_none()
    if row is None:
        return None
    update = update_of(row)
    return Acted(Outcome.REPEATED, update.state, update)


def _copy(request: _Request, grace_seconds: float, data_json: str | None) -> Acted:
    recorded = record_copy(
        request.session, request.event_id, idempotency_key=request.idempotency_key, grace_seconds=grace_seconds,
        data_json=data_json,
    )  # fmt: skip
    update = recorded.update
    if recorded.is_conflict:
        return Acted(Outcome.KEY_REUSED, update.state)
    if recorded.is_duplicate:
        return Acted(Outcome.REPEATED, update.state, update)
    detail = {
        "from_state": State.PROCESSED,
        "request": request.idempotency_key,
        "new_event_id": str(update.event_id),
        "is_edited": data_json is not None,
    }
    note(request.session, request.actor, request.action, event_id=request.event_id, detail=detail)
    return Acted(Outcome.COPIED, update.state, update)


def _is_copy(acted: Acted, event_id: UUID) -> bool:
    return acted.update is not None and acted.update.event_id != event_id


def _find(request: _Request) -> tuple[State, int] | None:
    parameters = {"event_id": request.event_id, "tenant": request.actor.tenant}
    row = request.session.execute(_STATE, parameters).one_or_none()
    return None if row is None else (State(row.state), row.version)
