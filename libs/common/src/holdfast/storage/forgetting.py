"""Dropping events that have ended, by their ids: first their identities are written down, and later their rows go.

Recording looks at ``event_identity`` and inserts in one statement, which sees one moment. If the row of an event went
together with the writing of its identity, a statement from before would see neither, and a repetition would be a new event.
So identities are there for ``SETTLE_SECONDS`` before rows go: no statement lasts that long.

An event that has not ended is never dropped, nor one whose updates somebody still has to publish or count, nor the parent
of a group with open members. Its row is locked by then, so that nobody moves it on meanwhile (ADR 0052).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from holdfast.domain.state import State
from holdfast.storage.counters import COUNTED_STATES
from holdfast.storage.identities import IDENTITY
from holdfast.storage.statements import render, state_list, statement

__all__ = ["LOOK_UP", "SETTLE_SECONDS", "Dropped", "Ripe", "drop", "mark"]

SETTLE_SECONDS = 90.0
"""Between writing an identity down and dropping the event. Ingest's statements may take 10 s, others 30 s."""

LOOK_UP = text("""
-- Tables may be empty or large, whatever their statistics say: only index look-ups are right in both.
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
       set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true)
""")
"""To be executed before the functions of this module, in their transaction."""

_HAS_ENDED = render("""
e.id = ANY (CAST(:event_ids AS uuid[])) AND e.tenant = :tenant AND s.state = ANY (CAST(:states AS text[]))
  AND s.state IN {FINISHED} AND s.finished_at <= now() - make_interval(secs => :ended_for_seconds)
""").strip()

_IS_KNOWN_FOR_LONGER = "e.received_at > now() - make_interval(secs => :dedupe_seconds)"

_MARK = statement("""
-- Parameters: event_ids, tenant, states, ended_for_seconds, dedupe_seconds.
INSERT INTO event_identity AS i (identity, event_id, state, version, until)
SELECT {identity}, e.id, s.state, s.version, e.received_at + make_interval(secs => :dedupe_seconds)
FROM event e JOIN processing_state s ON s.event_id = e.id
WHERE {ended} AND {known} ORDER BY 1
ON CONFLICT (identity) DO UPDATE SET event_id = excluded.event_id, state = excluded.state, version = excluded.version,
                                     until = excluded.until, made_at = now()
WHERE (i.event_id, i.state, i.version) IS DISTINCT FROM (excluded.event_id, excluded.state, excluded.version)
""", identity=IDENTITY.format(alias="e"), ended=_HAS_ENDED, known=_IS_KNOWN_FOR_LONGER)  # fmt: skip

_IS_SEEN = """
(pg_visible_in_snapshot(CAST(CAST(u.transaction_id AS text) AS xid8), CAST({cursor} AS pg_snapshot))
 OR u.at < {since} OR u.transaction_id IS NULL)
""".strip()
"""Whether an update was published, or counted. A database that was restored has updates with ids that are yet to come."""

_DROP = statement("""
-- Parameters: as _MARK; settle_seconds. A row that somebody has locked is left for another time.
WITH ended AS MATERIALIZED (
    SELECT e.id, s.state,
           {known} AND NOT EXISTS (
               SELECT FROM event_identity i WHERE i.identity = {identity} AND i.event_id = e.id AND i.version = s.version
                 AND i.made_at <= now() - make_interval(secs => :settle_seconds)) AS is_settling,
           EXISTS (SELECT FROM event_update u, outbox_cursor o, statistics_cursor c WHERE u.event_id = e.id
                     AND NOT ({is_published} AND {is_counted}))
           OR EXISTS (SELECT FROM event_group g WHERE g.parent_id = e.id AND g.completed_at IS NULL) AS is_needed
    FROM event e JOIN processing_state s ON s.event_id = e.id
    WHERE {ended} ORDER BY e.id FOR UPDATE OF s SKIP LOCKED
), dropped AS (
    DELETE FROM event e USING ended x WHERE e.id = x.id AND NOT x.is_settling AND NOT x.is_needed
    RETURNING e.id, e.tenant, x.state
), counted AS (
    UPDATE state_count c SET events = c.events - d.events
    FROM (SELECT tenant, state, count(*) AS events FROM dropped WHERE state IN {counted_states} GROUP BY 1, 2) d
    WHERE c.tenant = d.tenant AND c.state = d.state
)
SELECT (SELECT array_agg(id) FROM dropped) AS dropped, count(*) FILTER (WHERE is_settling AND NOT is_needed) AS settling
FROM ended
""", identity=IDENTITY.format(alias="e"), ended=_HAS_ENDED, known=_IS_KNOWN_FOR_LONGER,
    is_published=_IS_SEEN.format(cursor="o.confirmed", since="o.since"),
    is_counted=_IS_SEEN.format(cursor="c.counted", since="c.since"), counted_states=state_list(COUNTED_STATES))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Ripe:
    """Which events may go: ended in one of ``states`` for at least ``ended_for_seconds``.

    ``dedupe_seconds``: how long an identity is known, from when its event was received.
    """

    tenant: str
    states: frozenset[State]
    ended_for_seconds: float
    dedupe_seconds: float

    def parameters(self, event_ids: Sequence[UUID]) -> dict[str, Any]:
        """For the statements of this module."""
        return {
            "event_ids": list(event_ids), "tenant": self.tenant, "states": sorted(self.states),
            "ended_for_seconds": self.ended_for_seconds, "dedupe_seconds": self.dedupe_seconds,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Dropped:
    """Which events went, and how many only wait for their identities to settle."""

    event_ids: Sequence[UUID] = ()
    settling: int = 0


def mark(session: Session, event_ids: Sequence[UUID], ripe: Ripe) -> None:
    """Write down the identities of those of these events that may go."""
    session.execute(_MARK, ripe.parameters(event_ids))


def drop(session: Session, event_ids: Sequence[UUID], ripe: Ripe, *, settle_seconds: float = SETTLE_SECONDS) -> Dropped:
    """Drop those of these events that may go and whose identities were written down ``settle_seconds`` ago, with all that
    belongs to them. The others stay as they are.
    """
    row = session.execute(_DROP, ripe.parameters(event_ids) | {"settle_seconds": settle_seconds}).one()
    return Dropped(row.dropped or (), row.settling)
