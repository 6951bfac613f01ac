"""Erasing what a tenant has of a subject, or everything: a job that goes on after whatever kills its process (ADR 0052).

A walk through the events discards those that wait or are dead, writes the identities of those that have ended down, and drops
those for which that was done long enough ago (``storage.erasing``). An event that a worker has is left until its attempt
has ended. Walks follow each other until none of the events is left that were there when the job was begun; then what
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

from holdfast.domain.update import Update
from holdfast.runtime.ids import uuid7
from holdfast.storage.audit import Actor, maintenance_actor, note
from holdfast.storage.erasing import drop_ended, give_up
from holdfast.storage.forgetting import LOOK_UP, SETTLE_SECONDS
from holdfast.storage.redaction import redact, redact_all

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
"""The idempotency key belongs to an erasure of something else."""

_EVERYTHING = ""
"""The subject, and its hash, of an erasure of everything. No event has an empty subject."""

IS_ERASURE_DUE = "state = 'running' AND next_at <= now()"

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

_PAGE = """
-- Parameters: tenant, subject, after, created_at, limit. Events that came later are in the page and are passed by: it is as
-- small as any, however many came since. Bounds instead of equalities, since of those the order would be by id alone, which
-- the primary key has too: with it a page may read the events of all other tenants.
SELECT e.id, e.audience, e.tenant, e.type, e.subject, e.extensions, s.state, e.received_at > :created_at AS is_newer
FROM event e JOIN processing_state s ON s.event_id = e.id
WHERE {within} ORDER BY {order} LIMIT :limit
"""

_REMAINS = """
-- Parameters: tenant, subject, most.
SELECT (SELECT count(*) FROM (SELECT FROM event e WHERE e.tenant = :tenant AND {chosen} LIMIT :most) n) AS newer_events,
       ARRAY(SELECT e.name FROM schedule e WHERE e.tenant = :tenant AND {chosen} ORDER BY e.name LIMIT :most) AS schedules
"""

_OF_A_SUBJECT = {
    "within": "(e.tenant, e.subject, e.id) > (:tenant, :subject, :after) AND (e.tenant, e.subject) <= (:tenant, :subject)"
    " AND e.subject IS NOT NULL",
    "order": "e.tenant, e.subject, e.id", "chosen": "e.subject = :subject",
}  # fmt: skip

_OF_A_TENANT = {
    "within": "(e.tenant, e.id) > (:tenant, :after) AND e.tenant <= :tenant", "order": "e.tenant, e.id", "chosen": "true",
}  # fmt: skip

_PAGES, _REMAINDERS = (
    {
        is_everything: text(each.format(**parts))
        for is_everything, parts in ((False, _OF_A_SUBJECT), (True, _OF_A_TENANT))
    }
    for each in (_PAGE, _REMAINS)
)
"""By whether it is an erasure of everything."""

_MOVE = text("""
UPDATE erasure_job SET passed = :passed, erased = erased + :erased, waiting = :waiting, failures = 0, last_error = NULL,
       next_at = now() + make_interval(secs => :rest_seconds)
WHERE id = :id
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
    """An erasure, and how far it is. The subject is told by its hash alone: SHA-256 of its UTF-8, in hexadecimal; ``None``
    of an erasure of everything.

    ``waiting`` events of the last walk could not go yet. ``remains``, at the end: ``newer_events``, received since (20 stands
    for more), and ``schedules`` that name the subject, or all of them. ``failures`` turns in a row have ended with an
    exception.
    """

    id: UUID
    subject_sha256: str | None
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

    @property
    def is_everything(self) -> bool:
        """Whether it is of all that the tenant has."""
        return self.subject_sha256 is None


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


def begin_erasure(session: Session, actor: Actor, subject: str | None, *, idempotency_key: str) -> Erasure | str:
    """Let maintenance erase what the actor's tenant has of a subject, or everything (``None``); audited. Once for each
    ``idempotency_key``.

    Returns:
        The erasure, or :data:`KEY_REUSED`.
    """
    sha256 = _EVERYTHING if subject is None else hashlib.sha256(subject.encode()).hexdigest()
    keys = {"tenant": actor.tenant, "idempotency_key": idempotency_key}
    begun = {
        "id": uuid7(), "subject": subject or _EVERYTHING, "subject_sha256": sha256, "actor": actor.key_id,
        "actor_name": actor.name,
    }  # fmt: skip
    row = session.execute(_BEGIN, begun | keys).one_or_none()
    if row is None:
        row = session.execute(_REPEATED, keys).one()
        return _erasure(row) if row.subject_sha256 == sha256 else KEY_REUSED
    note(session, actor, "start_erase", detail={"erasure": str(row.id), **_told(row)})
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
    found = session.execute(_PAGES[_is_everything(job)], {
        "tenant": job.tenant, "subject": job.subject, "after": job.passed or _NIL, "created_at": job.created_at,
        "limit": limit,
    }).all()  # fmt: skip
    old = [row for row in found if not row.is_newer]
    updates = give_up(session, old, tenant=job.tenant, with_groups=_is_everything(job))
    gone = drop_ended(session, old, tenant=job.tenant, dedupe_seconds=dedupe_seconds, settle_seconds=settle_seconds)
    is_done = _go_on(session, job, found, len(old) - len(gone), len(gone), limit, settle_seconds)
    return Erased(job.tenant, [(row.id, row.audience) for row in old], updates, len(gone), len(found) == limit, is_done)


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


def _go_on(
    session: Session,
    job: Row[Any],
    found: Sequence[Row[Any]],
    left: int,
    erased: int,
    limit: int,
    settle_seconds: float,
) -> bool:
    """Move the job on; returns whether it is done. ``left``: events of the page that could not go."""
    before = 0 if job.passed is None else job.waiting
    waiting, is_over = before + left, len(found) < limit
    rest = settle_seconds / 10 if is_over else 0.0
    session.execute(_MOVE, {
        "id": job.id, "passed": None if is_over else found[-1].id, "erased": erased, "waiting": waiting, "rest_seconds": rest,
    })  # fmt: skip
    if waiting or not is_over:
        return False
    _finish(session, job)
    return True


def _finish(session: Session, job: Row[Any]) -> None:
    is_everything = _is_everything(job)
    if is_everything:
        redact_all(session, tenant=job.tenant)
    else:
        redact(session, tenant=job.tenant, subject=job.subject)
    parameters = {"tenant": job.tenant, "subject": job.subject, "most": MOST_NAMES}
    remains = session.execute(_REMAINDERS[is_everything], parameters).one()
    left = {"newer_events": remains.newer_events, "schedules": list(remains.schedules)}
    total = session.execute(_FINISH, {"id": job.id, "remains": json.dumps(left)}).scalar_one()
    detail = {"erasure": str(job.id), "created_by": job.created_by, **_told(job), "erased": total, **left}
    note(session, maintenance_actor(job.tenant), "finish_erase", detail=detail)


def _is_everything(job: Row[Any]) -> bool:
    return bool(job.subject_sha256 == _EVERYTHING)


def _told(job: Row[Any]) -> dict[str, Any]:
    """What the audit log says was erased."""
    return {"everything": True} if _is_everything(job) else {"subject_sha256": job.subject_sha256}


def _erasure(row: Row[Any]) -> Erasure:
    named = {field.name: getattr(row, field.name) for field in fields(Erasure)}
    return Erasure(**named | {"state": ErasureState(row.state), "subject_sha256": row.subject_sha256 or None})
