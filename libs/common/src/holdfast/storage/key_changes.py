"""What a tenant's administrators do to its keys: list, create, rotate and revoke them. Every change is audited.

A request that makes a key has an idempotency key. Its repetition makes no second key, and cannot be answered with the first
one either: only a hash of the secret is stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from sqlalchemy import func, select, text, tuple_, update
from sqlalchemy.orm import Session

from holdfast.storage.audit import Actor, note
from holdfast.storage.keys import KeyEntry, entries, entry_of, insert_key
from holdfast.storage.tables import ApiKey

__all__ = [
    "LONGEST_OVERLAP",
    "KeyPage",
    "Made",
    "Refusal",
    "Refused",
    "find_entry",
    "issue_key",
    "key_page",
    "revoke_own_key",
    "rotate_key",
]

LONGEST_OVERLAP = timedelta(days=30)
"""Of a rotation. Beyond that nobody remembers that the old key is still good."""

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:tenant || ' ' || :request, 0))")

_ADMINISTRATORS = text("""
-- Keys that open everything and are to stay: one that was replaced only lives for its overlap. In one order, so that two
-- revocations at once wait for each other, and the second sees what the first has left.
SELECT id FROM api_key
WHERE tenant = :tenant AND 'admin' = ANY(scopes) AND revoked_at IS NULL AND replaced_by IS NULL
  AND (expires_at IS NULL OR expires_at > now())
ORDER BY id FOR NO KEY UPDATE
""")


class Refusal(StrEnum):
    """Why a key was not made, or not revoked."""

    MISSING = "missing"
    """The tenant has no such key."""

    REPEATED = "repeated"
    """The same request made the key before, and its secret is not kept."""

    REVOKED = "revoked"
    EXPIRED = "expired"

    REPLACED = "replaced"
    """The key was rotated before; it is its successor that can be rotated."""

    LAST_ADMINISTRATOR = "last_administrator"
    """No other key of the tenant could make or revoke keys."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was done. ``key_id``: of the key that the reason is about, where there is one."""

    reason: Refusal
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """A new key: the whole of it, this once, and what the list shows of it."""

    key: str
    entry: KeyEntry


@dataclass(frozen=True, slots=True)
class KeyPage:
    """Keys, the newest first. ``next_id`` is what the next page comes after; ``None`` on the last one."""

    items: list[KeyEntry]
    next_id: str | None


def key_page(session: Session, *, tenant: str, limit: int, after_id: str | None = None) -> KeyPage:
    """Up to ``limit`` keys of a tenant that come after ``after_id``, the ``next_id`` of the page before.

    After an id that the tenant does not have there is nothing.
    """
    chosen = entries().where(ApiKey.tenant == tenant)
    if after_id is not None:
        created_at = session.scalar(select(ApiKey.created_at).where(ApiKey.id == after_id, ApiKey.tenant == tenant))
        if created_at is None:
            return KeyPage([], None)
        chosen = chosen.where(tuple_(ApiKey.created_at, ApiKey.id) < (created_at, after_id))
    rows = session.execute(chosen.order_by(ApiKey.created_at.desc(), ApiKey.id.desc()).limit(limit + 1))
    found = [entry_of(row) for row in rows]
    return KeyPage(found[:limit], found[limit - 1].key_id if len(found) > limit else None)


def find_entry(session: Session, key_id: str, *, tenant: str) -> KeyEntry | None:
    """One key of this tenant, or ``None``."""
    row = session.execute(entries().where(ApiKey.id == key_id, ApiKey.tenant == tenant)).one_or_none()
    return None if row is None else entry_of(row)


def issue_key(
    session: Session, actor: Actor, *, name: str, scopes: Sequence[str], life: timedelta | None, idempotency_key: str
) -> Made | Refused:
    """Create a key of the actor's tenant.

    Raises:
        ConfigurationError: a scope or life that cannot be.
    """
    request = f"create {idempotency_key}"
    if earlier := _made_before(session, actor.tenant, request):
        return earlier
    made = insert_key(session, actor, name=name, scopes=scopes, life=life, request=request)
    return Made(made.key, _present(session, actor, made.key_id))


def rotate_key(
    session: Session, actor: Actor, key_id: str, *, overlap: timedelta, idempotency_key: str
) -> Made | Refused:
    """Create a key with the name, scopes and life of another one, which then ends after ``overlap``, or when it would anyway.

    ``overlap`` is 0 to :data:`LONGEST_OVERLAP`. A life counts from when a key is made.
    """
    request = f"rotate {key_id} {idempotency_key}"
    if earlier := _made_before(session, actor.tenant, request):
        return earlier
    old = _locked(session, actor, key_id)
    if isinstance(old, Refused):
        return old
    life = None if old.expires_at is None else old.expires_at - old.created_at
    made = insert_key(
        session, actor, name=old.name, scopes=old.scopes, life=life, request=request, action="rotate_key",
        detail={"replaces": key_id, "overlap_seconds": int(overlap.total_seconds())},
    )  # fmt: skip
    # least() takes no notice of NULL, which is a key that would not have ended.
    ends_at = func.least(ApiKey.expires_at, func.now() + overlap)
    _change(session, key_id, replaced_by=made.key_id, expires_at=ends_at)
    return Made(made.key, _present(session, actor, made.key_id))


def revoke_own_key(session: Session, actor: Actor, key_id: str, *, force: bool = False) -> KeyEntry | Refused:
    """Revoke a key of the actor's tenant and return it; one that was revoked before stays as it is.

    ``force``: even if nobody is left who could make or revoke keys.
    """
    administrators = session.scalars(_ADMINISTRATORS, {"tenant": actor.tenant}).all()
    entry = find_entry(session, key_id, tenant=actor.tenant)
    if entry is None:
        return Refused(Refusal.MISSING)
    if not force and list(administrators) == [key_id]:
        return Refused(Refusal.LAST_ADMINISTRATOR, key_id)
    if not _change(session, key_id, revoked_at=func.now()):
        return _present(session, actor, key_id)
    note(session, actor, "revoke_key", detail={"key_id": key_id, "name": entry.name, "is_forced": force})
    return _present(session, actor, key_id)


def _made_before(session: Session, tenant: str, request: str) -> Refused | None:
    """What came of this request before; waits for one that is under way."""
    session.execute(_LOCK, {"tenant": tenant, "request": request})
    key_id = session.scalar(select(ApiKey.id).where(ApiKey.tenant == tenant, ApiKey.request == request))
    return None if key_id is None else Refused(Refusal.REPEATED, key_id)


def _locked(session: Session, actor: Actor, key_id: str) -> KeyEntry | Refused:
    """The key, locked, if it can be rotated."""
    chosen = entries().where(ApiKey.id == key_id, ApiKey.tenant == actor.tenant).with_for_update(of=ApiKey)
    row = session.execute(chosen).one_or_none()
    if row is None:
        return Refused(Refusal.MISSING)
    entry = entry_of(row)
    if entry.replaced_by is not None:
        return Refused(Refusal.REPLACED, entry.replaced_by)
    if entry.revoked_at is not None:
        return Refused(Refusal.REVOKED, key_id)
    return Refused(Refusal.EXPIRED, key_id) if entry.is_expired else entry


def _change(session: Session, key_id: str, **values: object) -> bool:
    """Change a key that is not revoked; ``False`` where it is."""
    changed = session.execute(
        update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None)).values(**values).returning(ApiKey.id)
        .execution_options(synchronize_session=False)
    )  # fmt: skip
    return changed.one_or_none() is not None


def _present(session: Session, actor: Actor, key_id: str) -> KeyEntry:
    """A key that is there: this transaction wrote or read it."""
    row = session.execute(entries().where(ApiKey.id == key_id, ApiKey.tenant == actor.tenant)).one()
    return entry_of(row)
