"""The state machine in SQL: every change of an event's state, in one place.

All transitions run through one guarded statement (``_APPLY``). It moves the rows whose guards hold, appends the history,
and writes the processed-event log or the attempt's error, all in one round trip. A transition whose guard says no
moves nothing and is missing from the answer: "lost the race" is a normal outcome. ``domain.transitions.after`` is the
same rule as a pure function; the tests run both over every state and constructor.

READ COMMITTED; only PostgreSQL's clock is compared. ``statement_timestamp()`` is used where a value is stored, because a
settling transaction is as old as its handler, and in guards: it is stable, so indexes stay usable.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from holdfast.domain.errors import AlreadyProcessed, LeaseLost
from holdfast.domain.event import Lease
from holdfast.domain.transitions import AttemptError, Completion, Grant, Transition, claim, recover
from holdfast.domain.update import Update
from holdfast.storage.events import EVENT_COLUMNS, stored_event
from holdfast.storage.updates import update_of

__all__ = ["Doorbell", "apply", "claim_events", "hold", "recover_expired", "redispatch_due", "undo_redispatch"]

Doorbell = tuple[UUID, int]
"""``(event_id, version)``: what a doorbell carries."""

_MOVE = """
WITH wanted AS (
    SELECT * FROM jsonb_to_recordset(CAST(:transitions AS jsonb)) AS w(
        event_id uuid, from_states text[], to_state text, version int, held_token uuid, needs_due bool,
        needs_expiry bool, delay_seconds float8, attempts int, crashes int, is_reset bool, lease_token uuid,
        lease_owner text, lease_seconds float8, detail jsonb, error jsonb, handler text, result jsonb, duration_ms int)
), moved AS (
    UPDATE processing_state s SET
        state = w.to_state,
        version = s.version + 1,
        attempt = CASE WHEN w.is_reset THEN 0 ELSE s.attempt + w.attempts END,
        crashes = CASE WHEN w.is_reset THEN 0 ELSE s.crashes + w.crashes END,
        dispatches = 0,
        available_at = coalesce(statement_timestamp() + make_interval(secs => w.delay_seconds), s.available_at),
        next_dispatch_at = coalesce(statement_timestamp() + make_interval(secs => w.delay_seconds), s.next_dispatch_at),
        lease_token = w.lease_token,
        lease_owner = w.lease_owner,
        lease_expires_at = statement_timestamp() + make_interval(secs => w.lease_seconds),
        last_error = CASE WHEN w.is_reset OR w.to_state = 'processed' THEN NULL
                          ELSE coalesce(w.error - 'traceback', s.last_error) END,
        finished_at = CASE WHEN w.to_state IN ('processed', 'dead', 'discarded') THEN statement_timestamp() END
    FROM wanted w
    WHERE s.event_id = w.event_id
      AND s.state = ANY (w.from_states)
      AND (w.version IS NULL OR s.version = w.version)
      AND (w.held_token IS NULL OR s.lease_token = w.held_token)
      AND (NOT w.needs_due OR s.available_at <= statement_timestamp())
      AND (NOT w.needs_expiry OR s.lease_expires_at <= statement_timestamp())
    RETURNING s.event_id, s.state, s.version, s.attempt, s.crashes, s.lease_token, s.finished_at,
              statement_timestamp() AS at, w.held_token, w.detail, w.error, w.handler, w.result, w.duration_ms
), history AS (
    INSERT INTO event_update (event_id, version, state, attempt, at, detail)
    SELECT event_id, version, state, attempt, at, detail FROM moved
), completed AS (
    INSERT INTO processed_event_log (event_id, handler, attempt, lease_token, result, duration_ms, processed_at)
    SELECT event_id, handler, attempt, held_token, result, duration_ms, at FROM moved WHERE handler IS NOT NULL
), failed AS (
    INSERT INTO attempt_error (event_id, attempt, handler, error_type, message, traceback, fingerprint, worker,
                               duration_ms, at)
    SELECT event_id, attempt, error->>'handler', error->>'type', error->>'message', error->>'traceback',
           error->>'fingerprint', :worker, CAST(error->>'duration_ms' AS int), at
    FROM moved WHERE error IS NOT NULL
)
"""

_APPLY = text(_MOVE + """
SELECT m.event_id, m.state, m.version, m.attempt, m.at, m.detail, e.tenant, e.type, e.audience
FROM moved m JOIN event e ON e.id = m.event_id
""")  # fmt: skip

_CLAIM = text(_MOVE + f"""
SELECT m.event_id, m.state, m.version, m.attempt, m.crashes, m.lease_token, m.at, m.detail, {EVENT_COLUMNS}
FROM moved m JOIN event e ON e.id = m.event_id
""")  # fmt: skip  # noqa: S608

_HOLD = text("""
-- Locks the row until the settling transaction ends: the lock keeps the sweep away however long the handler takes.
SELECT EXISTS (SELECT 1 FROM processed_event_log l WHERE l.event_id = s.event_id) AS is_processed
FROM processing_state s
WHERE s.event_id = :event_id AND s.state = 'processing' AND s.lease_token = :lease_token
FOR NO KEY UPDATE OF s
""")

_EXPIRED = text("""
-- now(), not clock_timestamp(): a volatile function would rule the partial index out.
SELECT event_id, lease_token, crashes FROM processing_state
WHERE state = 'processing' AND lease_expires_at < now()
ORDER BY lease_expires_at LIMIT :limit
FOR NO KEY UPDATE SKIP LOCKED
""")

_REDISPATCH = text("""
WITH due AS (
    SELECT event_id FROM processing_state
    WHERE state IN ('queued', 'failed') AND next_dispatch_at <= now()
    ORDER BY next_dispatch_at LIMIT :limit
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE processing_state s SET
    dispatches = s.dispatches + 1,
    -- 30 s, 1 min, 2 min, … 30 min: a backlog of any length rings a bounded number of times.
    next_dispatch_at = now() + make_interval(secs => least(30 * power(2, least(s.dispatches, 16)), 1800))
FROM due WHERE s.event_id = due.event_id
RETURNING s.event_id, s.version
""")

_UNDO_REDISPATCH = text("""
UPDATE processing_state s SET dispatches = greatest(s.dispatches - 1, 0), next_dispatch_at = now()
FROM jsonb_to_recordset(CAST(:doorbells AS jsonb)) AS d(event_id uuid, version int)
WHERE s.event_id = d.event_id AND s.version = d.version AND s.state IN ('queued', 'failed')
""")


def apply(session: Session, transitions: Sequence[Transition], *, worker: str | None = None) -> list[Update]:
    """Apply transitions and return the updates of those that moved, in no particular order.

    ``worker`` names the process in recorded errors.

    Raises:
        AlreadyProcessed: a ``settle`` found the event in the processed-event log. The transaction is spent: roll back.
    """
    rows = _execute(session, _APPLY, transitions, worker)
    return [update_of(row) for row in rows]


def claim_events(
    session: Session, doorbells: Iterable[Doorbell], *, owner: str, lease_seconds: float
) -> list[tuple[Lease, Update]]:
    """Lease the events that are due at the version their doorbell names; stale doorbells are missing from the answer.

    To be committed at once, before any handler runs; needs no durable commit.
    """
    wanted = [claim(event_id, version, Grant(uuid4(), owner, lease_seconds)) for event_id, version in doorbells]
    rows = _execute(session, _CLAIM, wanted, owner)
    return [(_lease(row, lease_seconds), update_of(row)) for row in rows]


def hold(session: Session, lease: Lease) -> None:
    """Lock the leased event's row for the rest of the transaction. Comes before the handler's first effect.

    Raises:
        LeaseLost: the event was recovered in the meantime; stop.
        AlreadyProcessed: effects are in the database already; do not run the handler.
    """
    row = session.execute(_HOLD, {"event_id": lease.event.id, "lease_token": lease.token}).one_or_none()
    if row is None:
        raise LeaseLost("the lease expired and the event was given to another worker")
    if row.is_processed:
        raise AlreadyProcessed("the processed-event log has this event")


def recover_expired(session: Session, *, limit: int) -> list[Update]:
    """Take up to ``limit`` expired leases away, oldest first: back to ``queued``, or ``dead`` in a crash loop.

    Rows locked by a settling transaction are skipped: that worker is alive.
    """
    rows = session.execute(_EXPIRED, {"limit": limit}).all()
    if not rows:
        return []
    return apply(session, [recover(row.event_id, row.lease_token, crashes=row.crashes) for row in rows])


def redispatch_due(session: Session, *, limit: int) -> list[Doorbell]:
    """Doorbells to ring, after the commit, for up to ``limit`` due events whose last one seems lost.

    The version stays, so copies of the doorbell that are still queued remain valid and a backlog does not livelock.
    """
    rows = session.execute(_REDISPATCH, {"limit": limit})
    return [(row.event_id, row.version) for row in rows]


def undo_redispatch(session: Session, doorbells: Iterable[Doorbell]) -> None:
    """Make events due for redispatch again whose doorbells could not be rung. Those that have moved on stay as they are."""
    listed = [{"event_id": str(event_id), "version": version} for event_id, version in sorted(doorbells)]
    session.execute(_UNDO_REDISPATCH, {"doorbells": json.dumps(listed)})


def _execute(session: Session, statement: Any, transitions: Sequence[Transition], worker: str | None) -> Any:
    if not transitions:
        return []
    # Sorted, so that two lists with the same events lock rows in one order.
    ordered = sorted(transitions, key=lambda transition: transition.event_id)
    parameters = {"transitions": json.dumps([_columns(transition) for transition in ordered]), "worker": worker}
    try:
        return session.execute(statement, parameters).all()
    except IntegrityError as exc:
        if getattr(getattr(exc.orig, "diag", None), "constraint_name", None) == "pk_processed_event_log":
            raise AlreadyProcessed("the processed-event log has this event") from exc
        raise


def _columns(transition: Transition) -> dict[str, Any]:
    grant, completion, error = transition.grant, transition.completion, transition.error
    return {
        "event_id": str(transition.event_id),
        "from_states": sorted(transition.from_states),
        "to_state": transition.to_state,
        "version": transition.version,
        "held_token": _text(transition.lease_token),
        "needs_due": transition.needs_due,
        "needs_expiry": transition.needs_expiry,
        "delay_seconds": transition.delay_seconds,
        "attempts": transition.attempts,
        "crashes": transition.crashes,
        "is_reset": transition.is_reset,
        "detail": dict(transition.detail),
        "error": _error(error),
        **_grant(grant),
        **_completion(completion),
    }


def _grant(grant: Grant | None) -> dict[str, Any]:
    if grant is None:
        return {}
    return {"lease_token": str(grant.token), "lease_owner": grant.owner, "lease_seconds": grant.seconds}


def _completion(completion: Completion | None) -> dict[str, Any]:
    if completion is None:
        return {}
    return {"handler": completion.handler, "result": completion.result, "duration_ms": completion.duration_ms}


def _error(error: AttemptError | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {
        "type": error.type,
        "message": error.message,
        "handler": error.handler,
        "traceback": error.traceback,
        "fingerprint": error.fingerprint,
        "duration_ms": error.duration_ms,
    }


def _text(token: UUID | None) -> str | None:
    return None if token is None else str(token)


def _lease(row: Row[Any], seconds: float) -> Lease:
    return Lease(
        event=stored_event(row),
        token=row.lease_token,
        version=row.version,
        attempt=row.attempt,
        crashes=row.crashes,
        seconds=seconds,
        claimed_at=row.at,
    )
