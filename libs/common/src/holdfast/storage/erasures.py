"""Erasing what a tenant has of a subject: a job that goes on after whatever kills its process (ADR 0052).

A walk through the subject's events discards those that wait or are dead, writes the identities of those that have ended down,
and drops those for which that was done long enough ago (``storage.forgetting``). An event that a worker has is left until its
attempt has ended. Walks follow each other until none of the events is left that were there when the job was begun; then what
operators left behind is redacted, and the job itself forgets the subject. All of a page is in one transaction.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from holdfast.domain.state import CLAIMABLE, State
from holdfast.domain.transitions import discard
from holdfast.domain.update import Update
from holdfast.runtime.ids import uuid7
from holdfast.storage.audit import Actor, maintenance_actor, note
from holdfast.storage.forgetting import LOOK_UP, SETTLE_SECONDS, Ripe, drop, mark
from holdfast.storage.lifecycle import apply
from holdfast.storage.redaction import forget_items, redact

__all__ = [
    "IS_ERASURE_DUE",
    "KEY_REUSED",
    "Erased",
    "Erasure",
    "ErasurePage",
    "ErasureState",
    "begin_erasure",
    "due_erasures",
    "erase_page",
    "find_erasure",
    "list_erasures",
    "postpone_erasure",
]

LONGEST_POSTPONEMENT_SECONDS = 300.0
"""Between two tries of an erasure that keeps failing. It begins with a second and doubles."""

MOST_NAMES = 20
"""Of schedules that the end of an erasure names."""

KEY_REUSED = "key_reused"
"""The idempotency key belongs to an erasure of another subject."""

IS_ERASURE_DUE = "state = 'running' AND next_at <= now()"

_ENDED = frozenset({State.PROCESSED, State.DISCARDED})
"""In which events are dropped. What waits or is dead is discarded first, so that counters and clients learn of it."""

_COLUMNS = """id, subject_sha256, created_by, created_by_name, created_at, state, erased, waiting, finished_at, remains,
    failures, last_error"""

_BEGIN = text(f"""
INSERT INTO erasure_job (id, tenant, idempotency_key, subject, subject_sha256, created_by, created_by_name)
VALUES (:id, :tenant, :idempotency_key, :subject, :subject_sha256, :actor, :actor_name)
ON CONFLICT ON CONSTRAINT uq_erasure_job_request DO NOTHING
RETURNING {_COLUMNS}
""")  # noqa: S608

_REPEATED = text(f"""
SELECT {_COLUMNS} FROM erasure_job WHERE tenant = :tenant AND idempotency_key = :idempotency_key
""")  # noqa: S608

_FIND = text(f"SELECT {_COLUMNS} FROM erasure_job WHERE tenant = :tenant AND id = :id")  # noqa: S608

_LIST = text(f"""
-- Parameters: tenant; before_id, or NULL; limit.
SELECT {_COLUMNS} FROM erasure_job
WHERE tenant = :tenant AND (CAST(:before_id AS uuid) IS NULL OR id < :before_id) ORDER BY id DESC LIMIT :limit
""")  # noqa: S608

_DUE = text(f"SELECT id FROM erasure_job WHERE {IS_ERASURE_DUE} ORDER BY next_at LIMIT :limit")  # noqa: S608

_TAKE = text(f"""
SELECT * FROM erasure_job WHERE id = :id AND {IS_ERASURE_DUE} FOR NO KEY UPDATE SKIP LOCKED
""")  # noqa: S608

_PAGE = text("""
SELECT e.id, e.audience, s.state FROM event e JOIN processing_state s ON s.event_id = e.id
WHERE e.tenant = :tenant AND e.subject = :subject AND e.id > :after AND e.received_at <= :created_at
ORDER BY e.id LIMIT :limit
""")

_MOVE = text("""
UPDATE erasure_job SET passed = :passed, erased = erased + :erased, waiting = :waiting, failures = 0, last_error = NULL,
       next_at = now() + make_interval(secs => :rest_seconds)
WHERE id = :id
""")

_REMAINS = text("""
-- Parameters: tenant, subject, most.
SELECT (SELECT count(*) FROM (SELECT FROM event WHERE tenant = :tenant AND subject = :subject LIMIT :most) e) AS newer_events,
       ARRAY(SELECT name FROM schedule WHERE tenant = :tenant AND subject = :subject ORDER BY name LIMIT :most) AS schedules
""")

_FINISH = text("""
UPDATE erasure_job SET state = 'done', finished_at = now(), subject = NULL, remains = CAST(:remains AS jsonb), waiting = 0
WHERE id = :id RETURNING erased
""")

_POSTPONE = text(f"""
-- Skips one that another process has by now: that one tells how its own turn ended.
UPDATE erasure_job SET failures = failures + 1, last_error = :error,
       next_at = now() + make_interval(secs => least(power(2, least(failures, 20)), :longest_seconds))
WHERE id = (SELECT id FROM erasure_job WHERE id = :id AND {IS_ERASURE_DUE} FOR NO KEY UPDATE SKIP LOCKED)
RETURNING failures
""")  # noqa: S608

_NIL = UUID(int=0)


class ErasureState(StrEnum):
    """Where an erasure stands."""

    RUNNING = "running"
    DONE = "done"
    """Of the events that were there when it was begun nothing is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """An erasure, and how far it is. The subject is told by its hash alone: SHA-256 of its UTF-8, in hexadecimal.

    ``waiting`` events of the last walk could not go yet. ``remains``, at the end: ``newer_events`` of the subject, received
    since (20 stands for more), and ``schedules`` that name it. ``failures`` turns in a row have ended with an exception.
    """

    id: UUID
    subject_sha256: str
    created_by: str
    created_by_name: str | None
    created_at: datetime
    state: ErasureState
    erased: int
    waiting: int
    finished_at: datetime | None
    remains: dict[str, Any] | None
    failures: int
    last_error: str | None


@dataclass(frozen=True, slots=True)
class ErasurePage:
    """Erasures, newest first. ``next_id``: the next page's ``before_id``; ``None`` on the last page."""

    items: list[Erasure]
    next_id: UUID | None


@dataclass(frozen=True, slots=True)
class Erased:
    """What a page did. Before the commit the live window is to forget the ``events``, by id and audience; afterwards the
    updates are to be told. ``is_full``: there is more to do at once.
    """

    tenant: str = ""
    events: Sequence[tuple[UUID, str | None]] = ()
    updates: Sequence[Update] = ()
    erased: int = 0
    is_full: bool = False
    is_done: bool = False


def begin_erasure(session: Session, actor: Actor, subject: str, *, idempotency_key: str) -> Erasure | str:
    """Let maintenance erase what the actor's tenant has of a subject; audited. Once for each ``idempotency_key``.

    Returns:
        The erasure, or :data:`KEY_REUSED`.
    """
    sha256 = hashlib.sha256(subject.encode()).hexdigest()
    keys = {"tenant": actor.tenant, "idempotency_key": idempotency_key}
    begun = {
        "id": uuid7(), "subject": subject, "subject_sha256": sha256, "actor": actor.key_id, "actor_name": actor.name,
    }  # fmt: skip
    row = session.execute(_BEGIN, begun | keys).one_or_none()
    if row is None:
        earlier = _erasure(session.execute(_REPEATED, keys).one())
        return earlier if earlier.subject_sha256 == sha256 else KEY_REUSED
    note(session, actor, "start_erase", detail={"erasure": str(row.id), "subject_sha256": sha256})
    return _erasure(row)


def find_erasure(session: Session, erasure_id: UUID, *, tenant: str) -> Erasure | None:
    """One erasure of this tenant, or ``None``."""
    row = session.execute(_FIND, {"tenant": tenant, "id": erasure_id}).one_or_none()
    return None if row is None else _erasure(row)


def list_erasures(session: Session, *, tenant: str, limit: int, before_id: UUID | None = None) -> ErasurePage:
    """A page of this tenant's erasures."""
    rows = session.execute(_LIST, {"tenant": tenant, "before_id": before_id, "limit": limit + 1})
    found = [_erasure(row) for row in rows]
    return ErasurePage(found[:limit], found[limit - 1].id if len(found) > limit else None)


def due_erasures(session: Session, *, limit: int) -> list[UUID]:
    """Those that have something to do by now, the longest waiting first."""
    return list(session.scalars(_DUE, {"limit": limit}))


def erase_page(
    session: Session, erasure_id: UUID, *, dedupe_seconds: float, limit: int, settle_seconds: float = SETTLE_SECONDS
) -> Erased:
    """Take the next ``limit`` events of an erasure; nothing where another process has it."""
    job = session.execute(_TAKE, {"id": erasure_id}).one_or_none()
    if job is None:
        return Erased()
    session.execute(LOOK_UP)
    found = session.execute(_PAGE, {
        "tenant": job.tenant, "subject": job.subject, "after": job.passed or _NIL, "created_at": job.created_at,
        "limit": limit,
    }).all()  # fmt: skip
    given_up = [discard(row.id) for row in found if row.state in CLAIMABLE | {State.DEAD}]
    updates = apply(session, given_up) if given_up else []
    gone = _drop(session, job, [row.id for row in found], dedupe_seconds, settle_seconds)
    forget_items(session, gone, tenant=job.tenant)
    is_done = _go_on(session, job, found, len(gone), limit, settle_seconds)
    return Erased(
        job.tenant, [(row.id, row.audience) for row in found], updates, len(gone), len(found) == limit, is_done
    )


def postpone_erasure(session: Session, erasure_id: UUID, *, error: str) -> int | None:
    """Note that a turn failed and make the erasure wait: 1 s, 2 s, 4 s, up to :data:`LONGEST_POSTPONEMENT_SECONDS`.

    Args:
        error: the exception's type; its text may quote an event.

    Returns:
        How many turns in a row have failed, or ``None`` where another process has it.
    """
    parameters = {"id": erasure_id, "error": error, "longest_seconds": LONGEST_POSTPONEMENT_SECONDS}
    failures: int | None = session.scalar(_POSTPONE, parameters)
    return failures


def _drop(
    session: Session, job: Row[Any], event_ids: Sequence[UUID], dedupe_seconds: float, settle_seconds: float
) -> Sequence[UUID]:
    ripe = Ripe(tenant=job.tenant, states=_ENDED, ended_for_seconds=0, dedupe_seconds=dedupe_seconds)
    mark(session, event_ids, ripe)
    return drop(session, event_ids, ripe, settle_seconds=settle_seconds).event_ids


def _go_on(
    session: Session, job: Row[Any], found: Sequence[Row[Any]], erased: int, limit: int, settle_seconds: float
) -> bool:
    """Move the job on; returns whether it is done."""
    before = 0 if job.passed is None else job.waiting
    waiting, is_over = before + len(found) - erased, len(found) < limit
    rest = settle_seconds / 10 if is_over else 0.0
    session.execute(_MOVE, {
        "id": job.id, "passed": None if is_over else found[-1].id, "erased": erased, "waiting": waiting, "rest_seconds": rest,
    })  # fmt: skip
    if waiting or not is_over:
        return False
    redact(session, tenant=job.tenant, subject=job.subject)
    remains = session.execute(_REMAINS, {"tenant": job.tenant, "subject": job.subject, "most": MOST_NAMES}).one()
    left = {"newer_events": remains.newer_events, "schedules": list(remains.schedules)}
    total = session.execute(_FINISH, {"id": job.id, "remains": json.dumps(left)}).scalar_one()
    detail = {
        "erasure": str(job.id), "created_by": job.created_by, "subject_sha256": job.subject_sha256, "erased": total, **left,
    }  # fmt: skip
    note(session, maintenance_actor(job.tenant), "finish_erase", detail=detail)
    return True


def _erasure(row: Row[Any]) -> Erasure:
    named = {field.name: getattr(row, field.name) for field in fields(Erasure)}
    return Erasure(**named | {"state": ErasureState(row.state)})
