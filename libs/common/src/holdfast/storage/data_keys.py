"""What operators do to data keys: look at them, wrap them anew, replace and drop them. Every change is audited."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from holdfast.storage.audit import command_actor, note
from holdfast.storage.sealing import Sealing, key_context

__all__ = ["REST_MINUTES", "KeyCount", "active_tenants", "count_keys", "drop_unused", "retire_keys", "rewrap", "rotate"]

REST_MINUTES = 10
"""How long a data key has been retired before it may be dropped: far longer than a process goes on with one that it knows,
and than a transaction lasts."""

_COUNT = text("""
SELECT kek_id, count(*) FILTER (WHERE retired_at IS NULL) AS active, count(retired_at) AS retired
FROM data_key GROUP BY kek_id ORDER BY kek_id
""")

_OLD = text("""
-- Parameters: current_id, limit. Locked, so that two commands share the work.
SELECT id, tenant, wrapped, kek_id FROM data_key WHERE kek_id <> :current_id
ORDER BY kek_id, id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
""")

_REWRAP = text("UPDATE data_key SET wrapped = :wrapped, kek_id = :kek_id WHERE id = :id")

_TENANTS = text("SELECT tenant FROM data_key WHERE retired_at IS NULL ORDER BY tenant")

_CURRENT = text("SELECT id FROM data_key WHERE tenant = :tenant AND retired_at IS NULL FOR NO KEY UPDATE")

_RETIRE = text("""
UPDATE data_key SET retired_at = now() WHERE tenant = :tenant AND retired_at IS NULL RETURNING id
""")

_DROP = text("""
-- Parameters: minutes. Reads every event once: there is no index on data_key_id, which each event would have to pay for.
DELETE FROM data_key k
WHERE k.retired_at < now() - make_interval(mins => :minutes)
  AND NOT EXISTS (SELECT FROM event e WHERE e.data_key_id = k.id)
  AND NOT EXISTS (SELECT FROM event_group g WHERE g.data_key_id = k.id)
RETURNING id, tenant
""")


@dataclass(frozen=True, slots=True)
class KeyCount:
    """How many data keys a key-encryption key wraps; nothing new is sealed with ``retired`` ones."""

    kek_id: str
    active: int
    retired: int


def count_keys(session: Session) -> list[KeyCount]:
    """By key-encryption key."""
    return [KeyCount(**row) for row in session.execute(_COUNT).mappings()]


def rewrap(session: Session, sealing: Sealing, *, operator: str, limit: int = 100) -> int:
    """Wrap up to ``limit`` data keys by the current key instead of another one; how many. No event is touched.

    To be repeated, each time in a transaction of its own, until it is 0. Both keys open what they wrap, so it may
    end anywhere.

    Raises:
        KeyMissing, DataUnreadable: as ``Sealing.open``; nothing is done.
    """
    rows = session.execute(_OLD, {"current_id": sealing.ring.current_id, "limit": limit}).all()
    for row in rows:
        wrapped = sealing.ring.wrap(sealing.data_key(row), key_context(row.id, row.tenant))
        session.execute(_REWRAP, {"id": row.id, "wrapped": wrapped, "kek_id": sealing.ring.current_id})
        detail = {"data_key": str(row.id), "from": row.kek_id, "to": sealing.ring.current_id}
        note(session, command_actor(row.tenant, operator), "rewrap_data_key", detail=detail)
    return len(rows)


def active_tenants(session: Session) -> Sequence[str]:
    """Tenants that have a data key."""
    return session.scalars(_TENANTS).all()


def rotate(session: Session, sealing: Sealing, tenant: str, *, operator: str) -> UUID:
    """Give a tenant another data key; its id. Processes use it within a minute. What is sealed stays with the one before."""
    retired = session.scalar(_CURRENT, {"tenant": tenant})
    made = sealing.rotate(session, tenant, retired)
    detail = {"data_key": str(made), "retired": None if retired is None else str(retired)}
    note(session, command_actor(tenant, operator), "rotate_data_key", detail=detail)
    return made


def retire_keys(session: Session, tenant: str) -> Sequence[UUID]:
    """Seal nothing new with the keys that a tenant has: the first step of erasing it. A later event gets a new key."""
    return session.scalars(_RETIRE, {"tenant": tenant}).all()


def drop_unused(session: Session, *, operator: str) -> int:
    """Drop the data keys, retired :data:`REST_MINUTES` ago or earlier, that no event is sealed with; how many."""
    rows = session.execute(_DROP, {"minutes": REST_MINUTES}).all()
    for row in rows:
        note(session, command_actor(row.tenant, operator), "drop_data_key", detail={"data_key": str(row.id)})
    return len(rows)
