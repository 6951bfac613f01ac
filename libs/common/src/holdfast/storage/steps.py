"""Steps of handlers: stored under the lease of the attempt that did them, read by the attempts that follow.

A step is stored in a transaction of its own, durably, with the event's row locked: a worker whose lease was taken away
stores nothing, and none can be taken away while it does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Session

from holdfast.domain.event import Lease
from holdfast.storage.statements import statement

__all__ = ["MOST_STEPS", "DoneStep", "NewStep", "Step", "done_steps", "is_held", "steps_of", "store_step"]

MOST_STEPS = 1000
"""Of one event."""

_STORE = statement("""
-- Parameters: event_id, token, handler, name, result, sleep_seconds, duration_ms. Stored again by the same attempt, whose
-- first answer was lost, it stays as it was. No row: the lease is gone.
WITH held AS MATERIALIZED (
    SELECT s.event_id, s.attempt FROM processing_state s
    WHERE s.event_id = :event_id AND s.state = {PROCESSING} AND s.lease_token = :token
    FOR NO KEY UPDATE
), stored AS (
    INSERT INTO event_step (event_id, handler, name, lease_token, attempt, result, wake_at, duration_ms)
    SELECT event_id, :handler, :name, :token, attempt, CAST(:result AS text),
           statement_timestamp() + make_interval(secs => CAST(:sleep_seconds AS float8)), :duration_ms
    FROM held
    ON CONFLICT ON CONSTRAINT pk_event_step DO NOTHING
)
SELECT event_id FROM held
""")

_DONE = statement("""
SELECT name, result, CAST(extract(epoch FROM wake_at - statement_timestamp()) AS float8) AS sleeps_seconds
FROM event_step WHERE event_id = :event_id AND handler = :handler LIMIT :most
""")

_HELD = statement("""
SELECT FROM processing_state WHERE event_id = :event_id AND state = {PROCESSING} AND lease_token = :token
""")

_STEPS_OF = statement("""
SELECT handler, name, attempt, result, wake_at, duration_ms, stored_at
FROM event_step WHERE event_id = :event_id ORDER BY stored_at, name LIMIT :most
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewStep:
    """A step that was just done: its ``result`` as JSON text, or how long a sleep is to last."""

    name: str
    result: str | None = None
    sleep_seconds: float | None = None
    duration_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DoneStep:
    """A step of an attempt before. ``result`` is JSON text; ``sleeps_seconds`` of a sleep are not above 0 once it is over."""

    name: str
    result: str | None = None
    sleeps_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step, as it is shown. ``wake_at`` is set for a sleep, ``result`` (JSON text) for another one."""

    handler: str
    name: str
    attempt: int
    result: str | None
    wake_at: datetime | None
    duration_ms: int
    stored_at: datetime


def store_step(session: Session, lease: Lease, handler: str, step: NewStep) -> bool:
    """Store a step; ``False`` where the lease is gone, and nothing is stored."""
    parameters = {
        "event_id": lease.event.id, "token": lease.token, "handler": handler, "name": step.name, "result": step.result,
        "sleep_seconds": step.sleep_seconds, "duration_ms": step.duration_ms,
    }  # fmt: skip
    return session.execute(_STORE, parameters).first() is not None


def done_steps(session: Session, event_id: UUID, handler: str) -> Sequence[DoneStep]:
    """The steps that attempts of this handler have stored."""
    rows = session.execute(_DONE, {"event_id": event_id, "handler": handler, "most": MOST_STEPS})
    return [DoneStep(name=row.name, result=row.result, sleeps_seconds=row.sleeps_seconds) for row in rows]


def is_held(session: Session, lease: Lease) -> bool:
    """Whether the lease is still that of its worker."""
    return session.execute(_HELD, {"event_id": lease.event.id, "token": lease.token}).first() is not None


def steps_of(session: Session, event_id: UUID) -> list[Step]:
    """The steps of an event, in the order in which they were done. Whose event it is has been asked before."""
    return [
        Step(
            handler=row.handler, name=row.name, attempt=row.attempt, result=row.result, wake_at=row.wake_at,
            duration_ms=row.duration_ms, stored_at=row.stored_at,
        )
        for row in session.execute(_STEPS_OF, {"event_id": event_id, "most": MOST_STEPS})
    ]  # fmt: skip
