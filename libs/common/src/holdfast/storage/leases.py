"""Leases: kept alive by their workers, taken away from workers that are gone."""

import json
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.orm import Session

from holdfast.domain.event import Lease
from holdfast.domain.transitions import Transition, cancel, recover
from holdfast.domain.update import Update
from holdfast.storage.cancels import CANCELLED_BY
from holdfast.storage.lifecycle import apply
from holdfast.storage.statements import statement

__all__ = ["extend", "recover_expired"]

_EXTEND = statement("""
-- Parameters: leases, JSON array of {{event_id, expected_token, seconds}}.
-- A row that is locked belongs to a handler that has just opened its transaction, or to a settle: waiting for it could take
-- as long as a handler, and the other leases would expire meanwhile.
WITH held AS (
    SELECT l.event_id, l.expected_token, l.seconds
    FROM jsonb_to_recordset(CAST(:leases AS jsonb)) AS l(event_id uuid, expected_token uuid, seconds float8)
    JOIN processing_state s ON s.event_id = l.event_id AND s.state = {PROCESSING} AND s.lease_token = l.expected_token
), free AS (
    SELECT s.event_id FROM processing_state s JOIN held USING (event_id) FOR NO KEY UPDATE OF s SKIP LOCKED
), extended AS (
    UPDATE processing_state s SET lease_expires_at = statement_timestamp() + make_interval(secs => held.seconds)
    FROM held JOIN free USING (event_id)
    WHERE s.event_id = held.event_id AND s.state = {PROCESSING} AND s.lease_token = held.expected_token
    RETURNING s.event_id
)
SELECT held.event_id, extended.event_id IS NOT NULL AS is_extended FROM held LEFT JOIN extended USING (event_id)
""")

_EXPIRED = statement(
    """
-- now(), not clock_timestamp(): a volatile function would rule the partial index out.
-- Parameters: expired_for_seconds, leases that expired later than that are left alone; limit.
SELECT s.event_id, s.lease_token, s.crashes, {cancelled_by} AS cancelled_by FROM processing_state s
WHERE state = {PROCESSING} AND lease_expires_at < now() - make_interval(secs => :expired_for_seconds)
ORDER BY lease_expires_at LIMIT :limit
FOR NO KEY UPDATE OF s SKIP LOCKED
""",
    cancelled_by=CANCELLED_BY,
)


def extend(session: Session, leases: Iterable[Lease]) -> dict[UUID, bool]:
    """Let leases last their ``seconds`` from now on again; the events that are still held, and whether theirs was extended.

    A row that another transaction has locked is left as it is: its handler has just begun to write, or it is being settled.
    """
    listed = [
        {"event_id": str(lease.event.id), "expected_token": str(lease.token), "seconds": lease.seconds}
        for lease in sorted(leases, key=lambda lease: lease.event.id)
    ]
    return {row.event_id: row.is_extended for row in session.execute(_EXTEND, {"leases": json.dumps(listed)})}


def recover_expired(session: Session, *, limit: int, expired_for_seconds: float = 0.0) -> list[Update]:
    """Take up to ``limit`` expired leases away, oldest first: back to ``queued``, ``dead`` in a crash loop, or ``discarded``
    where an operator has asked to cancel the event.

    Those that expired less than ``expired_for_seconds`` ago are left to somebody else. Rows locked by a settling transaction
    are skipped: that worker is alive.
    """
    rows = session.execute(_EXPIRED, {"limit": limit, "expired_for_seconds": expired_for_seconds}).all()
    if not rows:
        return []
    return apply(session, [_outcome(row) for row in rows])


def _outcome(row: Row[Any]) -> Transition:
    if row.cancelled_by is not None:
        return cancel(row.event_id, row.lease_token, by=row.cancelled_by, is_worker_lost=True)
    return recover(row.event_id, row.lease_token, crashes=row.crashes)
