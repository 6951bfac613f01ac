"""Requests to cancel events that run.

The handler's transaction has locked the event's row, so a request is a row of its own. The worker that runs the event looks
for it and ends the event (``transitions.cancel``). Where no worker has the event, because its attempt ended or the worker is
lost, maintenance does it, or a processor (:func:`carry_out`, ``leases.recover_expired``).

A request is about the run in which it was made: once the event has ended at a later version it is void, so that it never
meets a replay. Nothing has to be deleted in time for that; void rows are deleted when somebody comes by.
"""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from sqlalchemy.orm import Session

from holdfast.domain.transitions import discard
from holdfast.domain.update import Update
from holdfast.storage.database import Database
from holdfast.storage.lifecycle import apply
from holdfast.storage.looking import look
from holdfast.storage.statements import render, statement

__all__ = ["CANCELLED_BY", "IS_REQUESTED", "REQUESTED", "ask", "ask_all", "carry_out", "requested"]

_IS_VOID = render("""
EXISTS (SELECT FROM event_update u WHERE u.event_id = c.event_id AND u.version > c.version AND u.state IN {FINISHED})
""").strip()

CANCELLED_BY = f"(SELECT c.actor FROM cancel_request c WHERE c.event_id = s.event_id AND NOT {_IS_VOID})"  # noqa: S608 (ours)
"""Who has asked to cancel the event of the row ``s``, or NULL."""

IS_REQUESTED = "(SELECT event_id FROM cancel_request LIMIT 1) IS NOT NULL"
"""Whether there is any request, void ones included: there is none most of the time."""

_ASK = statement(
    """
-- Parameters: event_id, version, actor. A row of an earlier run is replaced, one of this run stays.
INSERT INTO cancel_request AS c (event_id, version, actor, requested_at)
VALUES (:event_id, :version, :actor, statement_timestamp())
ON CONFLICT (event_id) DO UPDATE
SET version = excluded.version, actor = excluded.actor, requested_at = excluded.requested_at
WHERE {is_void}
RETURNING c.event_id
""",
    is_void=_IS_VOID,
)

_ASK_ALL = statement(
    """
-- Parameters: event_ids and versions, sorted, of which some may have ended meanwhile; actor. No row of an event is locked:
-- its handler's transaction may have it. Who ends before this commits leaves a void request. Returns all that run.
WITH running AS (
    SELECT s.event_id, s.version FROM processing_state s
    JOIN unnest(CAST(:event_ids AS uuid[]), CAST(:versions AS int[])) AS i(event_id, version) USING (event_id, version)
    WHERE s.state || '' = {PROCESSING}
), asked AS (
    INSERT INTO cancel_request AS c (event_id, version, actor, requested_at)
    SELECT event_id, version, :actor, statement_timestamp() FROM running ORDER BY event_id
    ON CONFLICT (event_id) DO UPDATE
    SET version = excluded.version, actor = excluded.actor, requested_at = excluded.requested_at
    WHERE {is_void}
)
SELECT event_id FROM running
""",
    is_void=_IS_VOID,
)

REQUESTED = look(
    """
-- Parameters: event_ids, as text[].
SELECT coalesce(json_object_agg(c.event_id, c.actor), '{{}}') FROM cancel_request c
WHERE c.event_id = ANY (CAST(:event_ids AS uuid[])) AND NOT {is_void}
""",
    is_void=_IS_VOID,
)

_LOOSE = statement(
    """
-- Requests whose event no worker has. A row that somebody has locked is left for the next time: a handler has it by now.
-- Parameters: limit.
SELECT c.event_id, c.version AS asked_at_version, s.version, {is_void} AS is_void
FROM cancel_request c JOIN processing_state s ON s.event_id = c.event_id
WHERE s.state <> {PROCESSING} OR {is_void}
ORDER BY c.event_id LIMIT :limit
FOR NO KEY UPDATE OF s SKIP LOCKED
""",
    is_void=_IS_VOID,
)

_FORGET = statement("""
-- Parameters: event_ids and versions, of the requests: one that was made anew meanwhile stays.
DELETE FROM cancel_request c
USING unnest(CAST(:event_ids AS uuid[]), CAST(:versions AS int[])) AS done(event_id, version)
WHERE c.event_id = done.event_id AND c.version = done.version
""")


def ask(session: Session, event_id: UUID, *, version: int, actor: str) -> bool:
    """Ask that an event is cancelled which runs at this version; whether nobody had asked in this run before."""
    parameters = {"event_id": event_id, "version": version, "actor": actor}
    return session.execute(_ASK, parameters).one_or_none() is not None


def ask_all(session: Session, runs: Sequence[tuple[UUID, int]], *, actor: str) -> set[UUID]:
    """:func:`ask` for many, each an event and the version at which it ran; those that still run at it."""
    if not runs:
        return set()
    ordered = sorted(runs)
    parameters = {"event_ids": [each for each, _ in ordered], "versions": [version for _, version in ordered]}
    return set(session.scalars(_ASK_ALL, parameters | {"actor": actor}))


def requested(database: Database, event_ids: Sequence[UUID]) -> dict[UUID, str]:
    """Which of these events are to be cancelled, and who asked for it. One round trip.

    Raises:
        DatabaseUnavailable, StatementTooSlow: see ``Database.look``.
    """
    [found] = database.look(REQUESTED, event_ids=[str(each) for each in event_ids])
    return {UUID(event_id): actor for event_id, actor in found.items()}


def carry_out(session: Session, *, limit: int) -> list[Update]:
    """Discard up to ``limit`` events that were to be cancelled and whose attempt has ended otherwise; forget void requests.

    An event that failed, was put off or given back just then would run again.
    """
    rows = session.execute(_LOOSE, {"limit": limit}).all()
    if not rows:
        return []
    wanted = [replace(discard(row.event_id), expected_version=row.version) for row in rows if not row.is_void]
    updates = apply(session, [replace(each, detail={"reason": "cancelled"}) for each in wanted])
    moved = {update.event_id for update in updates}
    done = [row for row in rows if row.is_void or row.event_id in moved]
    parameters = {"event_ids": [row.event_id for row in done], "versions": [row.asked_at_version for row in done]}
    session.execute(_FORGET, parameters)
    return updates
