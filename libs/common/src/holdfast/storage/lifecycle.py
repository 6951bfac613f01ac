"""The state machine in SQL: every change of an event's state, in one place.

All transitions run through one guarded statement (``MOVE``). It moves the rows whose guards hold, appends the history,
and writes the processed-event log or the attempt's error, all in one round trip. A transition whose guard says no
moves nothing and is missing from the answer: "lost the race" is a normal outcome. ``domain.transitions.after`` is the
same rule as a pure function; the tests run both over every state and constructor.

READ COMMITTED; only PostgreSQL's clock is compared. ``statement_timestamp()`` is used where a value is stored, because a
settling transaction is as old as its handler, and in guards: it is stable, so indexes stay usable.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from holdfast.domain.errors import AlreadyProcessed, LeaseLost
from holdfast.domain.event import Lease
from holdfast.domain.state import FINISHED, State
from holdfast.domain.transitions import AttemptError, Completion, Grant, Transition
from holdfast.domain.update import Update
from holdfast.storage.groups import Ended, count_ended
from holdfast.storage.planned import Planned
from holdfast.storage.statements import render
from holdfast.storage.updates import update_of

__all__ = ["MOVE", "MOVE_PARAMETERS", "PLANNED", "Held", "apply", "execute", "hold", "hold_all", "violates"]

IDLE_MARGIN_SECONDS = 10.0
"""A handler that is only slow ends by its own timeout first."""

MOVE = """
-- Moves events whose guards hold. Parameters:
--   transitions: JSON array of objects with the columns of "requested". Guards: from_states, expected_version,
--                expected_token, needs_due, needs_expiry. lease_token is the new lease's.
--   worker: names the process in recorded errors; may be NULL.
-- Parts: held_lane_key, the lane that a moved event holds from now on; turn, a further guard over "s".
WITH requested AS (
    SELECT * FROM jsonb_to_recordset(CAST(:transitions AS jsonb)) AS r(
        event_id uuid, from_states text[], to_state text, expected_version int, expected_token uuid, needs_due bool,
        needs_expiry bool, version_delta int, delay_seconds float8, attempt_delta int, crash_delta int, is_reset bool,
        keeps_waiting bool, held_limit text, lease_token uuid, lease_owner text, lease_seconds float8, detail jsonb,
        error jsonb, handler text, result jsonb, duration_ms int, expected_transaction text)
), moved AS (
    UPDATE processing_state s SET
        state = r.to_state,
        version = s.version + r.version_delta,
        attempt = CASE WHEN r.is_reset THEN 0 ELSE s.attempt + r.attempt_delta END,
        crashes = CASE WHEN r.is_reset THEN 0 ELSE s.crashes + r.crash_delta END,
        dispatches = 0,
        available_at = coalesce(statement_timestamp() + make_interval(secs => r.delay_seconds), s.available_at),
        next_dispatch_at = coalesce(statement_timestamp() + make_interval(secs => r.delay_seconds), s.next_dispatch_at),
        lease_token = r.lease_token,
        lease_owner = r.lease_owner,
        lease_expires_at = statement_timestamp() + make_interval(secs => r.lease_seconds),
        held_lane = NULL,  -- of the release before
        held_lane_key = {held_lane_key},
        waiting_since = CASE WHEN r.keeps_waiting THEN s.waiting_since END,
        unserved_type = CASE WHEN r.keeps_waiting THEN s.unserved_type END,
        waits_in = CASE WHEN r.keeps_waiting THEN s.waits_in END,
        held_limit = r.held_limit,
        last_error = CASE WHEN r.is_reset OR r.to_state = {PROCESSED} THEN NULL
                          ELSE coalesce(r.error - 'traceback', s.last_error) END,
        finished_at = CASE WHEN r.to_state IN {FINISHED} THEN statement_timestamp() END
    FROM requested r
    WHERE s.event_id = r.event_id
      AND s.state = ANY (r.from_states)
      AND (r.expected_version IS NULL OR s.version = r.expected_version)
      AND (r.expected_token IS NULL OR s.lease_token = r.expected_token)
      AND (r.expected_transaction IS NULL OR CAST(pg_current_xact_id_if_assigned() AS text) = r.expected_transaction)
      AND (NOT r.needs_due OR coalesce(s.waiting_since, s.available_at) <= statement_timestamp())
      AND (NOT r.needs_expiry OR s.lease_expires_at <= statement_timestamp())
      AND {turn}
    RETURNING s.event_id, s.state, s.version, s.attempt, s.crashes, s.lease_token, s.held_lane_key, s.finished_at,
              s.group_id,
              statement_timestamp() AS at, r.expected_token, r.detail, r.error, r.handler, r.result, r.duration_ms
), history AS (
    INSERT INTO event_update (event_id, version, state, attempt, at, detail, published_at)
    SELECT event_id, version, state, attempt, at, detail, at FROM moved  -- the last one for the release before
), completed AS (
    INSERT INTO processed_event_log (event_id, handler, attempt, lease_token, result, duration_ms, processed_at)
    SELECT event_id, handler, attempt, expected_token, result, duration_ms, at FROM moved WHERE handler IS NOT NULL
), failed AS (
    INSERT INTO attempt_error (event_id, attempt, handler, error_type, message, traceback, fingerprint, worker,
                               duration_ms, at)
    SELECT event_id, attempt, error->>'handler', error->>'type', error->>'message', error->>'traceback',
           error->>'fingerprint', :worker, CAST(error->>'duration_ms' AS int), at
    FROM moved WHERE error IS NOT NULL
)
"""

MOVE_PARAMETERS = {"transitions": "text", "worker": "text"}

_APPLY = Planned(
    "apply",
    render(
        MOVE + """
SELECT m.event_id, m.state, m.version, m.attempt, m.at, m.detail, e.tenant, e.type, e.audience, m.group_id
FROM moved m JOIN event e ON e.id = m.event_id
""",
        held_lane_key="NULL", turn="true",
    ),
    parameters=MOVE_PARAMETERS,
    columns={
        "event_id": "uuid", "state": "text", "version": "int", "attempt": "int", "at": "timestamptz", "detail": "jsonb",
        "tenant": "text", "type": "text", "audience": "text", "group_id": "uuid",
    },
)  # fmt: skip

_HOLD = Planned("hold", render("""
-- Locks rows until the settling transaction ends: the lock keeps the sweep away however long the handler takes.
-- Parameters: leases, JSON array of {{event_id, token}}; timeout_ms and idle_ms, as text, or NULL to leave the settings as
-- they are.
SELECT s.event_id, EXISTS (SELECT 1 FROM processed_event_log l WHERE l.event_id = s.event_id) AS is_processed,
       CAST(pg_current_xact_id() AS text) AS transaction_id,
       set_config('statement_timeout', coalesce(:timeout_ms, current_setting('statement_timeout')), true),
       set_config('idle_in_transaction_session_timeout',
                  coalesce(:idle_ms, current_setting('idle_in_transaction_session_timeout')), true)
FROM jsonb_to_recordset(CAST(:leases AS jsonb)) AS l(event_id uuid, token uuid)
JOIN processing_state s ON s.event_id = l.event_id AND s.state = {PROCESSING} AND s.lease_token = l.token
ORDER BY s.event_id
FOR NO KEY UPDATE OF s
"""),
    parameters={"leases": "text", "timeout_ms": "text", "idle_ms": "text"},
    columns={
        "event_id": "uuid", "is_processed": "boolean", "transaction_id": "text", "statement_timeout": "text",
        "idle_timeout": "text",
    },
)  # fmt: skip

PLANNED = (_APPLY, _HOLD)


@dataclass(frozen=True, slots=True)
class Held:
    """Events whose rows a transaction has locked.

    Attributes:
        transaction: its id; see :func:`hold`. Empty where it has locked none.
        event_ids: those that are to be run; one that was recovered in the meantime is missing.
        processed: those whose effects are in the database already.
    """

    transaction: str
    event_ids: frozenset[UUID]
    processed: frozenset[UUID]


def apply(session: Session, transitions: Sequence[Transition], *, worker: str | None = None) -> list[Update]:
    """Apply transitions and return the updates of those that moved, in no particular order.

    ``worker`` names the process in recorded errors. Members of groups that have ended are counted, see ``storage.groups``.

    Raises:
        AlreadyProcessed: a ``settle`` found the event in the processed-event log. The transaction is spent: roll back.
    """
    rows = execute(session, _APPLY, transitions, worker)
    ended = [
        Ended(row.event_id, row.group_id, State(row.state))
        for row in rows
        if row.group_id is not None and row.state in FINISHED
    ]
    if ended:
        count_ended(session, ended)
    return [update_of(row) for row in rows]


def hold(session: Session, lease: Lease, *, timeout_seconds: float | None = None) -> str:
    """Lock the leased event's row for the rest of the transaction; returns the transaction's id, for ``settle``.

    Comes before the handler's first effect. PostgreSQL never uses an id again, so a settle that is in another transaction
    than this one is refused, however the handler has ended this one.

    ``timeout_seconds`` is from now on the longest that a statement of this transaction may take, and, with
    ``IDLE_MARGIN_SECONDS`` more, the longest that the transaction may do nothing: its lock keeps recovery away, so a worker
    that is frozen must not have it for ever.

    Raises:
        LeaseLost: the event was recovered in the meantime; stop.
        AlreadyProcessed: effects are in the database already; do not run the handler.
    """
    held = hold_all(session, [lease], timeout_seconds=timeout_seconds)
    if held.processed:
        raise AlreadyProcessed("the processed-event log has this event")
    if not held.event_ids:
        raise LeaseLost("the lease expired and the event was given to another worker")
    return held.transaction


def hold_all(session: Session, leases: Sequence[Lease], *, timeout_seconds: float | None = None) -> Held:
    """:func:`hold` for several events, which never raises for what became of one of them."""
    parameters = {
        "leases": json.dumps([{"event_id": str(lease.event.id), "token": str(lease.token)} for lease in leases]),
        "timeout_ms": _milliseconds(timeout_seconds),
        "idle_ms": None if timeout_seconds is None else _milliseconds(timeout_seconds + IDLE_MARGIN_SECONDS),
    }
    rows = _HOLD.execute(session, parameters).all()
    processed = frozenset(row.event_id for row in rows if row.is_processed)
    return Held(rows[0].transaction_id if rows else "", frozenset(row.event_id for row in rows) - processed, processed)


def execute(session: Session, moving: Planned, transitions: Sequence[Transition], worker: str | None) -> Any:
    """Run a statement that begins with ``MOVE`` and takes ``MOVE_PARAMETERS``; answers with its rows.

    Raises:
        AlreadyProcessed: as :func:`apply`.
    """
    if not transitions:
        return []
    # Sorted, so that two lists with the same events lock rows in one order.
    ordered = sorted(transitions, key=lambda transition: transition.event_id)
    parameters = {"transitions": json.dumps([_columns(transition) for transition in ordered]), "worker": worker}
    try:
        return moving.execute(session, parameters).all()
    except IntegrityError as exc:
        if violates(exc, "pk_processed_event_log"):
            raise AlreadyProcessed("the processed-event log has this event") from exc
        raise


def violates(exc: IntegrityError, constraint: str) -> bool:
    """Whether the constraint of this name was violated."""
    return getattr(getattr(exc.orig, "diag", None), "constraint_name", None) == constraint


def _columns(transition: Transition) -> dict[str, Any]:
    grant, completion, error = transition.grant, transition.completion, transition.error
    return {
        "event_id": str(transition.event_id),
        "from_states": sorted(transition.from_states),
        "to_state": transition.to_state,
        "expected_version": transition.expected_version,
        "expected_token": _text(transition.expected_token),
        "needs_due": transition.needs_due,
        "needs_expiry": transition.needs_expiry,
        "version_delta": transition.version_delta,
        "expected_transaction": transition.expected_transaction,
        "delay_seconds": transition.delay_seconds,
        "attempt_delta": transition.attempt_delta,
        "crash_delta": transition.crash_delta,
        "is_reset": transition.is_reset,
        "keeps_waiting": transition.keeps_waiting,
        "detail": dict(transition.detail),
        "error": _error(error),
        **_grant(grant),
        **_completion(completion),
    }


def _grant(grant: Grant | None) -> dict[str, Any]:
    if grant is None:
        return {}
    columns = {"lease_token": str(grant.token), "lease_owner": grant.owner, "lease_seconds": grant.seconds}
    return columns if grant.limit is None else {**columns, "held_limit": grant.limit}


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
        "reason": error.reason,
        "handler": error.handler,
        "traceback": error.traceback,
        "fingerprint": error.fingerprint,
        "duration_ms": error.duration_ms,
    }


def _milliseconds(seconds: float | None) -> str | None:
    return None if seconds is None else str(max(1, int(seconds * 1000)))


def _text(token: UUID | None) -> str | None:
    return None if token is None else str(token)
