"""Pauses: kept in PostgreSQL, read by every claim through one number."""

from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row
from sqlalchemy.orm import Session

from holdfast.domain.pauses import SHARED, Paused, PauseKind, Pauses
from holdfast.storage.audit import Actor, note
from holdfast.storage.statements import statement

__all__ = [
    "MOST_OF_TENANT", "MOST_PAUSES", "VERSION", "TooManyPauses", "find", "list_pauses", "pause", "read", "resume",
    "version",
]  # fmt: skip

MOST_PAUSES = 1000
"""Of all tenants, and as many of those that hold for every tenant. Every processor keeps all of them in mind."""

MOST_OF_TENANT = 100
"""So that one tenant cannot take the room of the others."""

VERSION = "(SELECT version FROM flow_version)"
"""For the columns of a claim: a look at a table of one row."""

_READ = statement("""
SELECT p.id, p.kind, p.name, p.tenant, p.paused_by, p.note, p.paused_at, v.version
FROM flow_version v LEFT JOIN pause p ON true ORDER BY p.paused_at, p.id
""")

_VERSION = statement("SELECT version FROM flow_version")

_PAUSE = statement("""
-- Parameters: id, kind, name, tenant, paused_by, note. What is paused already stays as it is.
WITH one AS (
    SELECT version FROM flow_version FOR UPDATE
), added AS (
    INSERT INTO pause (id, kind, name, tenant, paused_by, note)
    SELECT :id, :kind, :name, :tenant, :paused_by, :note FROM one
    ON CONFLICT (kind, name, coalesce(tenant, '')) DO NOTHING
    RETURNING id, kind, name, tenant, paused_by, note, paused_at
), risen AS (
    UPDATE flow_version SET version = version + 1 WHERE EXISTS (SELECT FROM added)
)
SELECT *, true AS is_new FROM added
UNION ALL
SELECT id, kind, name, tenant, paused_by, note, paused_at, false FROM pause
WHERE kind = :kind AND name = :name AND tenant IS NOT DISTINCT FROM :tenant AND NOT EXISTS (SELECT FROM added)
""")

_RESUME = statement("""
-- Parameters: id; tenant, whose pauses may be ended beside those of every tenant.
WITH one AS (
    SELECT version FROM flow_version FOR UPDATE
), ended AS (
    DELETE FROM pause WHERE id = :id AND (tenant IS NULL OR tenant = :tenant) AND EXISTS (SELECT FROM one)
    RETURNING id, kind, name, tenant, paused_by, note, paused_at
), risen AS (
    UPDATE flow_version SET version = version + 1 WHERE EXISTS (SELECT FROM ended)
)
SELECT * FROM ended
""")

_COUNT = statement("""
-- Parameters: tenant, NULL for pauses that hold for every tenant.
SELECT count(*) FILTER (WHERE tenant IS NOT DISTINCT FROM :tenant) AS own, count(*) AS alike
FROM pause WHERE (tenant IS NULL) = (CAST(:tenant AS text) IS NULL)
""")

_FIND = statement("""
-- Parameters: id; tenant.
SELECT id, kind, name, tenant, paused_by, note, paused_at FROM pause
WHERE id = :id AND (tenant IS NULL OR tenant = :tenant)
""")

_LIST = statement("""
-- Parameters: tenant; most.
SELECT id, kind, name, tenant, paused_by, note, paused_at FROM pause
WHERE tenant IS NULL OR tenant = :tenant ORDER BY paused_at DESC, id LIMIT :most
""")


class TooManyPauses(Exception):
    """There are as many as there may be; the transaction has to be rolled back."""


def read(session: Session) -> Pauses:
    """All pauses in force."""
    rows = session.execute(_READ).all()
    return Pauses(rows[0].version, [_paused(row) for row in rows if row.id is not None])


def version(session: Session) -> int:
    """Another number than before: something was paused or resumed."""
    return int(session.execute(_VERSION).scalar_one())


def list_pauses(session: Session, tenant: str) -> list[Paused]:
    """Those that concern a tenant, newest first."""
    return [_paused(row) for row in session.execute(_LIST, {"tenant": tenant, "most": MOST_PAUSES + MOST_OF_TENANT})]


def find(session: Session, pause_id: UUID, *, tenant: str) -> Paused | None:
    """A pause that concerns the tenant, or ``None``."""
    row = session.execute(_FIND, {"id": pause_id, "tenant": tenant}).one_or_none()
    return None if row is None else _paused(row)


def pause(
    session: Session, actor: Actor, kind: PauseKind, name: str, *, note_text: str | None = None
) -> tuple[Paused, bool]:
    """Pause from the commit on; the pause, and whether it is new. A type and a tenant are the actor's own.

    Raises:
        TooManyPauses: see ``MOST_PAUSES`` and ``MOST_OF_TENANT``.
    """
    tenant = None if kind in SHARED else actor.tenant
    parameters = {
        "id": uuid4(), "kind": kind, "name": name, "tenant": tenant, "paused_by": actor.name or actor.key_id,
        "note": note_text,
    }  # fmt: skip
    row = session.execute(_PAUSE, parameters).one_or_none()
    if row is None:  # somebody else's, committed while this statement waited: it is seen by the next one
        row = session.execute(_PAUSE, parameters).one()
    if row.is_new:
        there = session.execute(_COUNT, {"tenant": tenant}).one()
        if there.alike > MOST_PAUSES or (tenant is not None and there.own > MOST_OF_TENANT):
            raise TooManyPauses
        note(session, actor, "pause", detail={"kind": kind, "name": name, "note": note_text})
    return _paused(row), row.is_new


def resume(session: Session, actor: Actor, pause_id: UUID) -> Paused | None:
    """End a pause from the commit on; ``None``: there is none of this id for the actor's tenant."""
    row = session.execute(_RESUME, {"id": pause_id, "tenant": actor.tenant}).one_or_none()
    if row is None:
        return None
    ended = _paused(row)
    note(session, actor, "resume", detail={"kind": ended.kind, "name": ended.name})
    return ended


def _paused(row: Row[Any]) -> Paused:
    return Paused(
        id=row.id, kind=PauseKind(row.kind), name=row.name, tenant=row.tenant, paused_by=row.paused_by, note=row.note,
        paused_at=row.paused_at,
    )  # fmt: skip
