"""Working off the items of replays and discards, a batch in a transaction.

The process that has a job's row locked takes its next items; others skip it. The items are marked in the transaction that
replays their events, so after a crash exactly the rest is left to do: none is replayed twice, none is forgotten.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from holdfast.domain.state import State
from holdfast.domain.transitions import discard, replay
from holdfast.domain.update import Update
from holdfast.storage.audit import maintenance_actor, note
from holdfast.storage.cancels import ask_all
from holdfast.storage.copies import record_copies
from holdfast.storage.lifecycle import apply
from holdfast.storage.replays import IS_RUNNING, MAX_RATE_PER_S, MIN_RATE_PER_S, Action, JobState
from holdfast.storage.statements import statement

__all__ = ["LONGEST_POSTPONEMENT_SECONDS", "Batch", "due_replays", "postpone_replay", "replay_batch"]

LONGEST_POSTPONEMENT_SECONDS = 300.0
"""Between two tries of a replay that keeps failing. It begins with a second and doubles."""

_DUE = statement("""
SELECT id FROM replay_job WHERE {running} AND next_at <= now() ORDER BY next_at LIMIT :limit
""", running=IS_RUNNING)  # fmt: skip

_TAKE = statement("""
-- due: how many events the rate allows by now. The first is due at next_at, then one every 1 / rate_per_s.
SELECT id, tenant, action, created_by, created_by_name, filter->>'state' AS from_state,
       CAST(least(floor(least(extract(epoch FROM now() - next_at), :burst_seconds)
                        * least(greatest(rate_per_s, :min_rate), :max_rate)) + 1, :limit) AS int) AS due
FROM replay_job WHERE id = :id AND {running} AND next_at <= now()
FOR NO KEY UPDATE SKIP LOCKED
""", running=IS_RUNNING)  # fmt: skip

_ITEMS = text("""
SELECT event_id, version FROM replay_item WHERE job_id = :id AND done_at IS NULL ORDER BY event_id LIMIT :due
""")

_UNCHANGED = text("""
SELECT s.event_id FROM processing_state s
JOIN jsonb_to_recordset(CAST(:items AS jsonb)) AS i(event_id uuid, version int) USING (event_id, version)
WHERE s.state = :from_state
""")

_DONE = text("""
UPDATE replay_item SET outcome = d.outcome, new_event_id = d.new_event_id, done_at = now()
FROM jsonb_to_recordset(CAST(:done AS jsonb)) AS d(event_id uuid, outcome text, new_event_id uuid)
WHERE replay_item.job_id = :id AND replay_item.event_id = d.event_id
""")

_ADVANCE = text("""
-- Time that nobody used is worth :burst_seconds at most: a replay that stood still does not come back as a flood.
UPDATE replay_job SET
    replayed = replayed + :replayed,
    skipped = skipped + :skipped,
    next_at = greatest(next_at, now() - make_interval(secs => :burst_seconds))
              + make_interval(secs => (:replayed + :skipped) / least(greatest(rate_per_s, :min_rate), :max_rate)),
    state = CASE WHEN pending.is_left THEN state ELSE :done END,
    finished_at = CASE WHEN pending.is_left THEN NULL ELSE now() END,
    failures = 0,
    last_error = NULL
FROM (SELECT EXISTS (SELECT 1 FROM replay_item WHERE job_id = :id AND done_at IS NULL) AS is_left) pending
WHERE id = :id
RETURNING state, total, replayed, skipped
""")

_POSTPONE = statement("""
-- Skips a replay that another process has by now: that one tells how its own turn ended.
UPDATE replay_job SET
    failures = failures + 1,
    last_error = :error,
    next_at = now() + make_interval(secs => least(power(2, least(failures, 20)), :longest_seconds))
WHERE id = (SELECT id FROM replay_job WHERE id = :id AND {running} FOR NO KEY UPDATE SKIP LOCKED)
RETURNING failures
""", running=IS_RUNNING)  # fmt: skip

_RATES = {"min_rate": MIN_RATE_PER_S, "max_rate": MAX_RATE_PER_S}
"""A rate that an earlier release let in is brought within the bounds here: 1e-300 is an interval that PostgreSQL lacks."""


_Done = dict[UUID, Update | None]
"""Of each event that was acted on: its update, of a copy the copy's, and none where its worker is to end it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one turn did for a replay or discard: the updates to tell, and how many events had moved on.

    ``asked``: how many run and are to be cancelled. They move later.
    """

    updates: Sequence[Update] = ()
    skipped: int = 0
    action: Action = Action.REPLAY
    asked: int = 0

    @property
    def items(self) -> int:
        """Items done."""
        return len(self.updates) + self.asked + self.skipped


def due_replays(session: Session, *, limit: int) -> list[UUID]:
    """Running replays and discards whose rate allows another event by now, the longest waiting first."""
    return list(session.scalars(_DUE, {"limit": limit}))


def replay_batch(session: Session, replay_id: UUID, *, limit: int, burst_seconds: float, grace_seconds: float) -> Batch:
    """Replay, or discard, as many events as the rate allows by now, ``limit`` at most; nothing where another process has it.

    A discard of events that run asks for each to be cancelled, as ``operate.cancel_event`` does.

    The turn that ends it leaves an entry in the audit log.

    ``burst_seconds``: the longest standstill that is caught up with. ``grace_seconds`` as for ``events.record``.
    """
    pace = {"id": replay_id, "burst_seconds": burst_seconds, **_RATES}
    job = session.execute(_TAKE, pace | {"limit": limit}).one_or_none()
    if job is None:
        return Batch()
    items = session.execute(_ITEMS, {"id": job.id, "due": job.due}).all()
    done = _act(session, job, items, grace_seconds)
    updates = [update for update in done.values() if update is not None]
    batch = Batch(updates, len(items) - len(done), Action(job.action), len(done) - len(updates))
    _finish(session, job, items, done)
    counts = {"replayed": len(done), "skipped": batch.skipped}
    after = session.execute(_ADVANCE, pace | counts | {"done": JobState.DONE}).one()
    if after.state == JobState.DONE:
        _note_end(session, job, after)
    return batch


def postpone_replay(session: Session, replay_id: UUID, *, error: str) -> int | None:
    """Note that a turn failed and make the replay wait: 1 s, 2 s, 4 s, up to :data:`LONGEST_POSTPONEMENT_SECONDS`.

    Args:
        error: the exception's type; its text may quote an event.

    Returns:
        How many turns in a row have failed, or ``None`` where another process has the replay or it is over.
    """
    parameters = {"id": replay_id, "error": error, "longest_seconds": LONGEST_POSTPONEMENT_SECONDS}
    failures: int | None = session.scalar(_POSTPONE, parameters)
    return failures


def _act(session: Session, job: Row[Any], items: Sequence[Row[Any]], grace_seconds: float) -> _Done:
    """The update of each event that was still at the version that was frozen, by its id."""
    if job.from_state == State.PROCESSING:
        runs = [(item.event_id, item.version) for item in items]
        return dict.fromkeys(ask_all(session, runs, actor=job.created_by_name or job.created_by))
    if job.action == Action.REPLAY and job.from_state == State.PROCESSED:
        return _repeat(session, job, items, grace_seconds)
    move = discard if job.action == Action.DISCARD else replay
    moved = apply(session, [replace(move(item.event_id), expected_version=item.version) for item in items])
    return {update.event_id: update for update in moved}


def _repeat(session: Session, job: Row[Any], items: Sequence[Row[Any]], grace_seconds: float) -> _Done:
    """Processed events are recorded again as new ones; by the original's id."""
    listed = [{"event_id": str(item.event_id), "version": item.version} for item in items]
    unchanged = session.scalars(_UNCHANGED, {"items": json.dumps(listed), "from_state": job.from_state}).all()
    recorded = record_copies(session, unchanged, idempotency_key=str(job.id), grace_seconds=grace_seconds)
    return {event_id: each.update for event_id, each in recorded.items()}


def _finish(session: Session, job: Row[Any], items: Iterable[Row[Any]], done: _Done) -> None:
    outcomes = [_outcome(f"{job.action}ed", item.event_id, done) for item in items]
    if outcomes:
        session.execute(_DONE, {"id": job.id, "done": json.dumps(outcomes)})


def _outcome(word: str, event_id: UUID, done: _Done) -> dict[str, str | None]:
    if event_id not in done:
        return {"event_id": str(event_id), "outcome": "skipped"}
    update = done[event_id]
    new_event_id = None if update is None or update.event_id == event_id else str(update.event_id)
    return {"event_id": str(event_id), "outcome": word, "new_event_id": new_event_id}


def _note_end(session: Session, job: Row[Any], after: Row[Any]) -> None:
    detail = {
        "created_by": job.created_by, "total": after.total, f"{job.action}ed": after.replayed, "skipped": after.skipped,
    }  # fmt: skip
    note(session, maintenance_actor(job.tenant), f"finish_{job.action}", replay_id=job.id, detail=detail)
