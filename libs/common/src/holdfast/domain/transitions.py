"""The state machine: which edges are legal, and one constructor per edge.

A :class:`Transition` says which event may move from where to where and what has to hold for it (the fence). It decides
nothing by itself: ``storage.lifecycle.apply`` runs it as one guarded statement, and :func:`after` is the same rule as a
pure function, against which the SQL is tested.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from holdfast.domain.event import NewEvent, NewGroup
from holdfast.domain.state import CLAIMABLE, State

__all__ = [
    "LEGAL_EDGES",
    "MAX_CRASHES",
    "AttemptError",
    "Completion",
    "Grant",
    "Snapshot",
    "Transition",
    "after",
    "await_handler",
    "await_key",
    "bury",
    "cancel",
    "claim",
    "discard",
    "fail",
    "recover",
    "release",
    "replay",
    "resettle",
    "settle",
    "sleep",
    "snooze",
    "supersede",
]

LEGAL_EDGES: frozenset[tuple[State, State]] = frozenset(
    {
        (State.QUEUED, State.PROCESSING),
        (State.FAILED, State.PROCESSING),
        (State.PROCESSING, State.PROCESSED),
        (State.PROCESSING, State.FAILED),
        (State.PROCESSING, State.DEAD),
        (State.PROCESSING, State.QUEUED),
        (State.PROCESSING, State.DISCARDED),
        (State.QUEUED, State.QUEUED),
        (State.FAILED, State.QUEUED),
        (State.DEAD, State.QUEUED),
        (State.DISCARDED, State.QUEUED),
        (State.QUEUED, State.DISCARDED),
        (State.FAILED, State.DISCARDED),
        (State.DEAD, State.DISCARDED),
    }
)
"""Every edge between states; recording an event (nothing to ``queued``) is the only other way in."""

MAX_CRASHES = 3
"""Lost workers after which an event is taken to be the cause. Two can be bad luck in one deployment."""

CRASH_DELAY_SECONDS = 1.0
"""Wait before a recovered event is due again, so that a payload that kills workers does not spin."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease to hand out with a claim. ``token`` is random: see ADR 0002 for why a counter does not do."""

    token: UUID
    owner: str
    seconds: float
    limit: str | None = None
    """The limit that the event counts for while it runs."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What the processed-event log keeps. ``result`` is JSON-serialisable, or ``None``.

    ``emitted``: events that the handler made, and ``groups`` of some of them, which are recorded in the transaction in which
    it is kept.
    """

    handler: str
    result: Any
    duration_ms: int
    emitted: tuple[NewEvent, ...] = ()
    groups: tuple[NewGroup, ...] = ()


@dataclass(frozen=True, slots=True)
class AttemptError:
    """Why an attempt failed. ``fingerprint`` is equal for failures with one cause.

    ``message`` and ``traceback`` are for operators: an exception's own text may quote a payload. ``reason`` is text that was
    written for clients, by the handler's author (``Reject``, ``Retry``) or by Holdfast, or ``None``.
    """

    type: str
    message: str
    handler: str | None = None
    traceback: str | None = None
    fingerprint: str | None = None
    duration_ms: int | None = None
    reason: str | None = None

    def summary(self) -> dict[str, str | None]:
        """What clients see of it: ``{"type", "message"}``, the message ``None`` where none was written for them."""
        return {"type": self.type, "message": self.reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One event's move along one legal edge, with its guards.

    Guards: the event is in ``from_states``, its version is ``expected_version``, its lease token is ``expected_token``, it
    is due (``needs_due``), its lease has expired (``needs_expiry``), and the database transaction is still
    ``expected_transaction``. A guard that is ``None`` or false is not checked.
    """

    event_id: UUID
    from_states: frozenset[State]
    to_state: State
    expected_version: int | None = None
    expected_token: UUID | None = None
    needs_due: bool = False
    needs_expiry: bool = False
    expected_transaction: str | None = None
    """See ``storage.lifecycle.hold``. Not in the model: it says nothing about the row."""
    version_delta: int = 1
    """Added to ``version``."""
    delay_seconds: float | None = None
    """Wait until the event is due again; ``None`` where the new state is never due."""
    attempt_delta: int = 0
    """Added to ``attempt``."""
    crash_delta: int = 0
    """Added to ``crashes``."""
    is_reset: bool = False
    """Start over with ``attempt`` and ``crashes`` at zero."""
    keeps_waiting: bool = False
    """The event goes on waiting for a handler."""
    grant: Grant | None = None
    completion: Completion | None = None
    error: AttemptError | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    """What the update tells clients beyond the state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The part of a ``processing_state`` row that the rules look at."""

    event_id: UUID
    state: State
    version: int
    attempt: int
    crashes: int
    available_at: datetime
    lease_token: UUID | None = None
    lease_expires_at: datetime | None = None


def claim(event_id: UUID, version: int, grant: Grant) -> Transition:
    """A worker takes a due event. ``version`` comes from the doorbell, so that a stale one finds nothing."""
    return Transition(
        event_id=event_id, from_states=CLAIMABLE, to_state=State.PROCESSING, expected_version=version, needs_due=True,
        attempt_delta=1, grant=grant,
    )  # fmt: skip


def settle(event_id: UUID, lease_token: UUID, completion: Completion, *, transaction: str | None = None) -> Transition:
    """The handler has finished; its effects are in the same transaction, which is ``transaction`` if they must be."""
    return Transition(
        event_id=event_id, from_states=frozenset({State.PROCESSING}), to_state=State.PROCESSED,
        expected_token=lease_token, expected_transaction=transaction, completion=completion,
        detail={"result": completion.result},
    )  # fmt: skip


def resettle(event_id: UUID, lease_token: UUID) -> Transition:
    """The processed-event log has the event although its state says otherwise: only the state is put right."""
    return Transition(
        event_id=event_id, from_states=frozenset({State.PROCESSING}), to_state=State.PROCESSED, expected_token=lease_token,
    )  # fmt: skip


def fail(event_id: UUID, lease_token: UUID, error: AttemptError, *, delay_seconds: float) -> Transition:
    """An attempt failed and another one follows after ``delay_seconds``."""
    return Transition(
        event_id=event_id, from_states=frozenset({State.PROCESSING}), to_state=State.FAILED, expected_token=lease_token,
        delay_seconds=delay_seconds, error=error,
        detail={"error": error.summary(), "retry_in_seconds": round(delay_seconds, 3)},
    )  # fmt: skip


def bury(event_id: UUID, lease_token: UUID, error: AttemptError) -> Transition:
    """An attempt failed for good: attempts used up, rejected, no handler."""
    return Transition(
        event_id=event_id, from_states=frozenset({State.PROCESSING}), to_state=State.DEAD, expected_token=lease_token,
        error=error, detail={"error": error.summary()},
    )  # fmt: skip


def release(event_id: UUID, lease_token: UUID) -> Transition:
    """A worker that shuts down hands back what it has not begun or not finished. No crash, and the attempt is not spent."""
    return Transition(
        event_id=event_id, from_states=frozenset({State.PROCESSING}), to_state=State.QUEUED, expected_token=lease_token,
        delay_seconds=0.0, attempt_delta=-1, detail={"reason": "released"},
    )  # fmt: skip


def snooze(event_id: UUID, lease_token: UUID, *, delay_seconds: float) -> Transition:
    """The handler wants the event later. The attempt is not spent."""
    return Transition(
        event_id=event_id, from_states=frozenset({State.PROCESSING}), to_state=State.QUEUED, expected_token=lease_token,
        delay_seconds=delay_seconds, attempt_delta=-1,
        detail={"reason": "snoozed", "retry_in_seconds": round(delay_seconds, 3)},
    )  # fmt: skip


def sleep(event_id: UUID, lease_token: UUID, *, delay_seconds: float) -> Transition:
    """The handler sleeps between two steps (``ctx.sleep``). The attempt is not spent."""
    return replace(
        snooze(event_id, lease_token, delay_seconds=delay_seconds),
        detail={"reason": "sleeping", "retry_in_seconds": round(delay_seconds, 3)},
    )


def await_handler(event_id: UUID, version: int, *, delay_seconds: float) -> Transition:
    """Nobody who was met serves the event's type. It goes on waiting, and clients see why.

    After ``delay_seconds`` somebody looks at it again, whether or not a processor that serves it has come until then.
    """
    return Transition(
        event_id=event_id, from_states=CLAIMABLE, to_state=State.QUEUED, expected_version=version,
        delay_seconds=delay_seconds, keeps_waiting=True, detail={"reason": "no_handler"},
    )  # fmt: skip


def await_key(event_id: UUID, lease_token: UUID, *, delay_seconds: float) -> Transition:
    """The worker lacks the key that the event's data is sealed under. The attempt is not spent."""
    return Transition(
        event_id=event_id, from_states=frozenset({State.PROCESSING}), to_state=State.QUEUED, expected_token=lease_token,
        delay_seconds=delay_seconds, attempt_delta=-1,
        detail={"reason": "key_missing", "retry_in_seconds": round(delay_seconds, 3)},
    )  # fmt: skip


def recover(event_id: UUID, lease_token: UUID, *, crashes: int) -> Transition:
    """Take an expired lease away from a worker that is gone; ``crashes`` is the count so far, this one not included."""
    if crashes + 1 >= MAX_CRASHES:
        reason = f"the worker was lost {crashes + 1} times with this event"
        error = AttemptError(type="crash_loop", message=reason, reason=reason)
        return Transition(
            event_id=event_id, from_states=frozenset({State.PROCESSING}), to_state=State.DEAD, expected_token=lease_token,
            needs_expiry=True, crash_delta=1, error=error, detail={"error": error.summary()},
        )  # fmt: skip
    return Transition(
        event_id=event_id, from_states=frozenset({State.PROCESSING}), to_state=State.QUEUED, expected_token=lease_token,
        needs_expiry=True, delay_seconds=CRASH_DELAY_SECONDS * 2**crashes, crash_delta=1, detail={"reason": "recovered"},
    )  # fmt: skip


def replay(event_id: UUID) -> Transition:
    """An operator sends a dead or discarded event round again, with all its attempts."""
    return Transition(
        event_id=event_id, from_states=frozenset({State.DEAD, State.DISCARDED}), to_state=State.QUEUED,
        delay_seconds=0.0, is_reset=True, detail={"reason": "replayed"},
    )  # fmt: skip


def discard(event_id: UUID) -> Transition:
    """An operator gives an event up.

    Skips a version: a claim's commit is not durable, so a crash of PostgreSQL may have undone one that clients have seen,
    and they would drop another update of that version (ADR 0015).
    """
    return Transition(
        event_id=event_id, from_states=CLAIMABLE | {State.DEAD}, to_state=State.DISCARDED, version_delta=2,
    )  # fmt: skip


def supersede(event_id: UUID, by: UUID) -> Transition:
    """A later event of its key, ``by``, takes the place of a debounced one that was never claimed. Skips a version as
    :func:`discard` does.
    """
    return Transition(
        event_id=event_id, from_states=frozenset({State.QUEUED}), to_state=State.DISCARDED, expected_version=1,
        version_delta=2, detail={"reason": "superseded", "superseded_by": str(by)},
    )  # fmt: skip


def cancel(
    event_id: UUID,
    lease_token: UUID,
    *,
    by: str,
    handler: str | None = None,
    duration_ms: int | None = None,
    is_worker_lost: bool = False,
) -> Transition:
    """An operator gives an event up that runs: its worker has ended the handler, or is lost (``is_worker_lost``).

    ``by`` names the operator, for operators. One version: what follows a claim is durable, and the claim with it (ADR 0015).
    """
    error = AttemptError(
        type="cancelled", message=f"{by} cancelled the event while it ran", handler=handler, duration_ms=duration_ms,
        reason="an operator cancelled the event while it ran",
    )  # fmt: skip
    return Transition(
        event_id=event_id, from_states=frozenset({State.PROCESSING}), to_state=State.DISCARDED, expected_token=lease_token,
        needs_expiry=is_worker_lost, crash_delta=1 if is_worker_lost else 0, error=error,
        detail={"reason": "cancelled", "error": error.summary()},
    )  # fmt: skip


def after(row: Snapshot, transition: Transition, *, now: datetime) -> Snapshot | None:
    """The row after the transition, or ``None`` where a guard says no. The model of ``storage.lifecycle.apply``."""
    if not _may_move(row, transition, now=now):
        return None
    delay, grant = transition.delay_seconds, transition.grant
    return replace(
        row,
        state=transition.to_state,
        version=row.version + transition.version_delta,
        attempt=0 if transition.is_reset else row.attempt + transition.attempt_delta,
        crashes=0 if transition.is_reset else row.crashes + transition.crash_delta,
        available_at=row.available_at if delay is None else now + timedelta(seconds=delay),
        lease_token=grant.token if grant else None,
        lease_expires_at=now + timedelta(seconds=grant.seconds) if grant else None,
    )


def _may_move(row: Snapshot, transition: Transition, *, now: datetime) -> bool:
    return (
        row.event_id == transition.event_id
        and row.state in transition.from_states
        and transition.expected_version in (None, row.version)
        and transition.expected_token in (None, row.lease_token)
        and not (transition.needs_due and row.available_at > now)
        and not (transition.needs_expiry and (row.lease_expires_at is None or row.lease_expires_at > now))
    )
