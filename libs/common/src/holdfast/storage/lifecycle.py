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
from holdfast.domain.event import Doorbell, Lease
from holdfast.domain.transitions import AttemptError, Completion, Grant, Transition, claim, recover
from holdfast.domain.update import Update
from holdfast.storage.events import EVENT_COLUMNS, stored_event
from holdfast.storage.updates import update_of

__all__ = [
    "apply",
    "claim_due",
    "claim_events",
    "extend",
    "hold",
    "next_in_lane",
    "recover_expired",
    "redispatch_due",
    "undo_redispatch",
]

IDLE_MARGIN_SECONDS = 10.0
"""A handler that is only slow ends by its own timeout first."""

_OTHERS_TURN = """
EXISTS (SELECT FROM processing_state o JOIN event oe ON oe.id = o.event_id
        WHERE o.lane = s.lane AND o.event_id <> s.event_id AND o.state IN ('queued', 'failed', 'processing')
          AND (o.held_lane IS NOT NULL OR (o.lane_at, o.event_id) < (s.lane_at, s.event_id)) AND oe.type ~ :ordered)
"""

_IS_ORDERED = "EXISTS (SELECT FROM event e WHERE e.id = s.event_id AND e.type ~ :ordered)"

_ITS_TURN = f"(s.lane IS NULL OR NOT {_IS_ORDERED} OR NOT {_OTHERS_TURN})"
"""Whether an event may run: nobody of its lane does, and none that arrived before it is still to be done. Two claims may
both see it so; the unique index on ``held_lane`` then lets one of them in."""

_MOVE = """
WITH wanted AS (
    SELECT * FROM jsonb_to_recordset(CAST(:transitions AS jsonb)) AS w(
        event_id uuid, from_states text[], to_state text, version int, held_token uuid, needs_due bool,
        needs_expiry bool, versions int, delay_seconds float8, attempts int, crashes int, is_reset bool, lease_token uuid,
        lease_owner text, lease_seconds float8, detail jsonb, error jsonb, handler text, result jsonb, duration_ms int,
        expected_transaction text)
), moved AS (
    UPDATE processing_state s SET
        state = w.to_state,
        version = s.version + w.versions,
        attempt = CASE WHEN w.is_reset THEN 0 ELSE s.attempt + w.attempts END,
        crashes = CASE WHEN w.is_reset THEN 0 ELSE s.crashes + w.crashes END,
        dispatches = 0,
        available_at = coalesce(statement_timestamp() + make_interval(secs => w.delay_seconds), s.available_at),
        next_dispatch_at = coalesce(statement_timestamp() + make_interval(secs => w.delay_seconds), s.next_dispatch_at),
        lease_token = w.lease_token,
        lease_owner = w.lease_owner,
        lease_expires_at = statement_timestamp() + make_interval(secs => w.lease_seconds),
        held_lane = {held_lane},
        last_error = CASE WHEN w.is_reset OR w.to_state = 'processed' THEN NULL
                          ELSE coalesce(w.error - 'traceback', s.last_error) END,
        finished_at = CASE WHEN w.to_state IN ('processed', 'dead', 'discarded') THEN statement_timestamp() END
    FROM wanted w
    WHERE s.event_id = w.event_id
      AND s.state = ANY (w.from_states)
      AND (w.version IS NULL OR s.version = w.version)
      AND (w.held_token IS NULL OR s.lease_token = w.held_token)
      AND (w.expected_transaction IS NULL OR CAST(pg_current_xact_id_if_assigned() AS text) = w.expected_transaction)
      AND (NOT w.needs_due OR s.available_at <= statement_timestamp())
      AND (NOT w.needs_expiry OR s.lease_expires_at <= statement_timestamp())
      AND {turn}
    RETURNING s.event_id, s.state, s.version, s.attempt, s.crashes, s.lease_token, s.held_lane, s.finished_at,
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

_MOVE_ANY = _MOVE.format(held_lane="NULL", turn="true")
_MOVE_IN_TURN = _MOVE.format(held_lane=f"CASE WHEN {_IS_ORDERED} THEN s.lane END", turn=_ITS_TURN)

_APPLY = text(_MOVE_ANY + """
SELECT m.event_id, m.state, m.version, m.attempt, m.at, m.detail, e.tenant, e.type, e.audience
FROM moved m JOIN event e ON e.id = m.event_id
""")  # fmt: skip

_LEASES = f"""
SELECT m.event_id, m.state, m.version, m.attempt, m.crashes, m.lease_token, m.held_lane, m.at, m.detail, {EVENT_COLUMNS}
FROM moved m JOIN event e ON e.id = m.event_id
"""  # noqa: S608

_CLAIM = text(_MOVE_ANY + _LEASES)
_CLAIM_IN_TURN = text(_MOVE_IN_TURN + _LEASES)

_DUE = """
SELECT s.event_id, s.version FROM processing_state s
WHERE s.state IN ('queued', 'failed') AND s.available_at <= now() - make_interval(secs => :overdue_seconds)
  AND (s.crashes > 0) = :is_suspect AND {turn}
ORDER BY s.available_at LIMIT :limit
FOR NO KEY UPDATE OF s SKIP LOCKED
"""

_DUE_ANY = text(_DUE.format(turn="true"))
_DUE_IN_TURN = text(_DUE.format(turn=_ITS_TURN))

_NEXT_IN_LANE = text("""
SELECT s.event_id, s.version, s.crashes > 0 AS is_suspect, s.available_at <= now() AS is_due
FROM processing_state s JOIN event e ON e.id = s.event_id
WHERE s.lane = :lane AND s.state IN ('queued', 'failed', 'processing') AND e.type ~ :ordered
ORDER BY s.lane_at, s.event_id LIMIT 1
""")

_HOLD = text("""
-- Locks the row until the settling transaction ends: the lock keeps the sweep away however long the handler takes.
SELECT EXISTS (SELECT 1 FROM processed_event_log l WHERE l.event_id = s.event_id) AS is_processed,
       CAST(pg_current_xact_id() AS text) AS transaction_id,
       set_config('statement_timeout', coalesce(:timeout_ms, current_setting('statement_timeout')), true),
       set_config('idle_in_transaction_session_timeout',
                  coalesce(:idle_ms, current_setting('idle_in_transaction_session_timeout')), true)
FROM processing_state s
WHERE s.event_id = :event_id AND s.state = 'processing' AND s.lease_token = :lease_token
FOR NO KEY UPDATE OF s
""")

_EXTEND = text("""
-- leases: JSON array of {event_id, held_token, seconds}
UPDATE processing_state s SET lease_expires_at = statement_timestamp() + make_interval(secs => l.seconds)
FROM jsonb_to_recordset(CAST(:leases AS jsonb)) AS l(event_id uuid, held_token uuid, seconds float8)
WHERE s.event_id = l.event_id AND s.state = 'processing' AND s.lease_token = l.held_token
RETURNING s.event_id
""")

_EXPIRED = text("""
-- now(), not clock_timestamp(): a volatile function would rule the partial index out.
SELECT event_id, lease_token, crashes FROM processing_state
WHERE state = 'processing' AND lease_expires_at < now() - make_interval(secs => :expired_for_seconds)
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
RETURNING s.event_id, s.version, s.crashes > 0 AS is_suspect
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
    session: Session,
    doorbells: Iterable[Doorbell | tuple[UUID, int]],
    *,
    owner: str,
    lease_seconds: float,
    ordered: str | None = None,
) -> list[tuple[Lease, Update]]:
    """Lease the events that are due at the version their doorbell names; stale doorbells are missing from the answer.

    To be committed at once, before any handler runs; needs no durable commit. ``ordered`` is a regular expression of the
    event types that are taken one by one within their subject, in the order in which they arrived; those whose turn it is
    not are missing too.
    """
    wanted = [claim(event_id, version, Grant(uuid4(), owner, lease_seconds)) for event_id, version, *_ in doorbells]
    rows = _claim(session, wanted, owner, ordered)
    return [(_lease(row, lease_seconds), update_of(row)) for row in rows]


def claim_due(
    session: Session,
    *,
    owner: str,
    lease_seconds: float,
    limit: int,
    is_suspect: bool = False,
    overdue_seconds: float = 0.0,
    ordered: str | None = None,
) -> list[tuple[Lease, Update]]:
    """Lease up to ``limit`` events that have been due for ``overdue_seconds``, oldest first, without any doorbell.

    Two callers never get one event: rows that another one looks at are skipped. ``is_suspect`` chooses events that were
    with a lost worker before, and otherwise those that were not.
    """
    parameters: dict[str, Any] = {"limit": limit, "is_suspect": is_suspect, "overdue_seconds": overdue_seconds}
    if ordered is not None:
        parameters["ordered"] = ordered
    due = session.execute(_DUE_ANY if ordered is None else _DUE_IN_TURN, parameters).all()
    doorbells = [Doorbell(row.event_id, row.version) for row in due]
    return claim_events(session, doorbells, owner=owner, lease_seconds=lease_seconds, ordered=ordered)


def next_in_lane(session: Session, lane: int, *, ordered: str) -> Doorbell | None:
    """Whom to ring for once an event of the lane is done with: the first that is to be done, if it is due."""
    row = session.execute(_NEXT_IN_LANE, {"lane": lane, "ordered": ordered}).one_or_none()
    return Doorbell(row.event_id, row.version, row.is_suspect) if row is not None and row.is_due else None


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
    limits = {
        "timeout_ms": _milliseconds(timeout_seconds),
        "idle_ms": None if timeout_seconds is None else _milliseconds(timeout_seconds + IDLE_MARGIN_SECONDS),
    }
    row = session.execute(_HOLD, {"event_id": lease.event.id, "lease_token": lease.token} | limits).one_or_none()
    if row is None:
        raise LeaseLost("the lease expired and the event was given to another worker")
    if row.is_processed:
        raise AlreadyProcessed("the processed-event log has this event")
    return str(row.transaction_id)


def extend(session: Session, leases: Iterable[Lease]) -> set[UUID]:
    """Let leases last their ``seconds`` from now on again; returns the ids of those events that are still held."""
    listed = [
        {"event_id": str(lease.event.id), "held_token": str(lease.token), "seconds": lease.seconds}
        for lease in sorted(leases, key=lambda lease: lease.event.id)
    ]
    return {row.event_id for row in session.execute(_EXTEND, {"leases": json.dumps(listed)})}


def recover_expired(session: Session, *, limit: int, expired_for_seconds: float = 0.0) -> list[Update]:
    """Take up to ``limit`` expired leases away, oldest first: back to ``queued``, or ``dead`` in a crash loop.

    Those that expired less than ``expired_for_seconds`` ago are left to somebody else. Rows locked by a settling transaction
    are skipped: that worker is alive.
    """
    rows = session.execute(_EXPIRED, {"limit": limit, "expired_for_seconds": expired_for_seconds}).all()
    if not rows:
        return []
    return apply(session, [recover(row.event_id, row.lease_token, crashes=row.crashes) for row in rows])


def redispatch_due(session: Session, *, limit: int) -> list[Doorbell]:
    """Doorbells to ring, after the commit, for up to ``limit`` due events whose last one seems lost.

    The version stays, so copies of the doorbell that are still queued remain valid and a backlog does not livelock.
    """
    rows = session.execute(_REDISPATCH, {"limit": limit})
    return [Doorbell(row.event_id, row.version, row.is_suspect) for row in rows]


def undo_redispatch(session: Session, doorbells: Iterable[Doorbell | tuple[UUID, int]]) -> None:
    """Make events due for redispatch again whose doorbells could not be rung. Those that have moved on stay as they are."""
    listed = [{"event_id": str(event_id), "version": version} for event_id, version, *_ in sorted(doorbells)]
    session.execute(_UNDO_REDISPATCH, {"doorbells": json.dumps(listed)})


def _claim(session: Session, wanted: Sequence[Transition], owner: str, ordered: str | None) -> Any:
    if ordered is None:
        return _execute(session, _CLAIM, wanted, owner)
    try:
        with session.begin_nested():
            return _execute(session, _CLAIM_IN_TURN, wanted, owner, ordered=ordered)
    except IntegrityError as exc:
        if _violates(exc, "uq_processing_state_held_lane"):
            return []  # another worker took one of the lanes at this moment; whoever looks next finds the others
        raise


def _execute(
    session: Session, statement: Any, transitions: Sequence[Transition], worker: str | None, **more: str
) -> Any:
    if not transitions:
        return []
    # Sorted, so that two lists with the same events lock rows in one order.
    ordered = sorted(transitions, key=lambda transition: transition.event_id)
    parameters = {"transitions": json.dumps([_columns(transition) for transition in ordered]), "worker": worker}
    try:
        return session.execute(statement, parameters | more).all()
    except IntegrityError as exc:
        if _violates(exc, "pk_processed_event_log"):
            raise AlreadyProcessed("the processed-event log has this event") from exc
        raise


def _violates(exc: IntegrityError, constraint: str) -> bool:
    return getattr(getattr(exc.orig, "diag", None), "constraint_name", None) == constraint


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
        "expected_transaction": transition.expected_transaction,
        "versions": transition.versions,
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


def _lease(row: Row[Any], seconds: float) -> Lease:
    return Lease(
        event=stored_event(row),
        token=row.lease_token,
        version=row.version,
        attempt=row.attempt,
        crashes=row.crashes,
        seconds=seconds,
        claimed_at=row.at,
        lane=row.held_lane,
    )
