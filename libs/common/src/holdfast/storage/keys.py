"""API keys: ``hf_<key id>_<secret>``, of which only a hash is stored. Creating and revoking them is audited."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, Select, func, or_, select, update
from sqlalchemy.orm import Session

from holdfast.domain.errors import ConfigurationError
from holdfast.domain.names import is_tenant
from holdfast.storage.audit import Actor, command_actor, note
from holdfast.storage.tables import ApiKey

__all__ = [
    "LONGEST_LIFE",
    "SCOPES",
    "KeyEntry",
    "KeyHolder",
    "NewKey",
    "create_key",
    "entries",
    "entry_of",
    "find_key",
    "insert_key",
    "is_secret_of",
    "list_keys",
    "note_use",
    "parse_key",
    "revoke_key",
]

SCOPES = ("events:write", "events:read", "operate", "admin")

LONGEST_LIFE = timedelta(days=3650)
"""Of a key that expires. Longer is as good as never, which is what to say then."""

_KEY = re.compile(r"hf_([a-z0-9]{12})_([A-Za-z0-9_-]{43})", re.ASCII)
_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Who a key speaks for. ``secret_hash`` is 32 bytes.

    ``seconds_left``: until the key expires, counted from when it was looked up, on PostgreSQL's clock; ``None``: never.
    ``name``: what people call the key.
    """

    key_id: str
    tenant: str
    scopes: frozenset[str]
    secret_hash: bytes
    seconds_left: float | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key in the list of keys, without anything secret. ``last_used_at`` is up to a minute behind.

    ``replaced_by``: the id of the key that a rotation made for this one. ``is_expired`` on PostgreSQL's clock.
    """

    key_id: str
    tenant: str
    name: str
    scopes: Sequence[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    replaced_by: str | None = None
    is_expired: bool = False

    @property
    def is_active(self) -> bool:
        """Whether it opens anything."""
        return self.revoked_at is None and not self.is_expired


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was made just now: the whole of it, and its id."""

    key: str
    key_id: str


def create_key(
    session: Session,
    *,
    tenant: str,
    name: str,
    scopes: Sequence[str] = ("events:write", "events:read"),
    life: timedelta | None = None,
    actor: str = "holdfast",
) -> str:
    """Create a key, for a command, and return it. This is the only time that the whole key exists.

    Args:
        life: until it expires, on PostgreSQL's clock; up to :data:`LONGEST_LIFE`. ``None``: it does not expire.
        actor: who creates it, for the audit log.

    Raises:
        ConfigurationError: a tenant, scope or life that cannot be.
    """
    if not is_tenant(tenant):
        raise ConfigurationError("a tenant is 1 to 63 letters, digits, dots, dashes and underscores")
    made = insert_key(session, command_actor(tenant, actor), name=name, scopes=scopes, life=life)
    return made.key


def insert_key(
    session: Session,
    actor: Actor,
    *,
    name: str,
    scopes: Sequence[str],
    life: timedelta | None,
    request: str | None = None,
    action: str = "create_key",
    detail: Mapping[str, Any] | None = None,
) -> NewKey:
    """Write a key of the actor's tenant, and note it as ``action`` with ``detail``.

    Raises:
        ConfigurationError: a scope or life that cannot be.
    """
    if life is not None and not timedelta(0) < life <= LONGEST_LIFE:
        raise ConfigurationError(f"a key lives for more than 0 s and at most {LONGEST_LIFE.days} days, not {life}")
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise ConfigurationError(f"unknown scope {', '.join(unknown) or '(none)'}; there are {', '.join(SCOPES)}")
    key_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(12))
    secret = secrets.token_urlsafe(32)
    expires_at = None if life is None else session.scalar(select(func.now() + life))
    session.add(
        ApiKey(
            id=key_id, tenant=actor.tenant, name=name, scopes=sorted(set(scopes)), secret_hash=_hash(secret),
            expires_at=expires_at, request=request,
        )
    )  # fmt: skip
    session.flush()
    made = {
        "key_id": key_id, "name": name, "scopes": sorted(set(scopes)),
        "expires_at": expires_at.isoformat() if expires_at else None,
    }  # fmt: skip
    note(session, actor, action, detail=made | dict(detail or {}))
    return NewKey(f"hf_{key_id}_{secret}", key_id)


def parse_key(text: str) -> tuple[str, str] | None:
    """``(key id, secret)``, or ``None`` for a text that is no key."""
    match = _KEY.fullmatch(text)
    return (match[1], match[2]) if match else None


def find_key(session: Session, key_id: str) -> KeyHolder | None:
    """The holder of a key that exists and is not revoked, an expired one included. Says nothing about the secret: see
    :func:`is_secret_of`."""
    seconds_left = func.extract("epoch", ApiKey.expires_at - func.now())
    found = select(ApiKey, seconds_left).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
    row = session.execute(found).one_or_none()
    if row is None:
        return None
    key, left = row
    seconds = None if left is None else float(left)
    return KeyHolder(key.id, key.tenant, frozenset(key.scopes), key.secret_hash, seconds, key.name)


def list_keys(session: Session, *, tenant: str | None = None) -> list[KeyEntry]:
    """All keys, or a tenant's, the newest first; revoked and expired ones too."""
    found = entries().order_by(ApiKey.created_at.desc(), ApiKey.id)
    if tenant is not None:
        found = found.where(ApiKey.tenant == tenant)
    return [entry_of(row) for row in session.execute(found)]


def entries() -> Select[ApiKey, bool]:
    """Keys, each with whether it has expired, for :func:`entry_of`."""
    return select(ApiKey, ApiKey.expires_at <= func.now()).execution_options(populate_existing=True)


def entry_of(row: Row[ApiKey, bool]) -> KeyEntry:
    """What a list shows of a key."""
    key, is_expired = row
    return KeyEntry(
        key.id, key.tenant, key.name, tuple(key.scopes), key.created_at, key.expires_at, key.last_used_at,
        key.revoked_at, key.replaced_by, bool(is_expired),
    )  # fmt: skip


def note_use(session: Session, key_ids: Sequence[str]) -> None:
    """Set ``last_used_at`` of these keys, at most once a minute each, however many processes ask."""
    is_old = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < func.now() - timedelta(minutes=1))
    # Sorted, so that two processes lock the rows in one order.
    rows = select(ApiKey.id).where(ApiKey.id.in_(key_ids), is_old).order_by(ApiKey.id).with_for_update(skip_locked=True)
    session.execute(
        update(ApiKey).where(ApiKey.id.in_(rows.scalar_subquery())).values(last_used_at=func.now())
        .execution_options(synchronize_session=False)
    )  # fmt: skip


def is_secret_of(holder: KeyHolder, secret: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(holder.secret_hash, _hash(secret))


def revoke_key(session: Session, key_id: str, *, actor: str = "holdfast") -> bool:
    """Revoke a key of whatever tenant, for a command; ``False`` when there is no such key, or it was revoked before."""
    revoked = session.execute(
        update(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=func.now())
        .returning(ApiKey.tenant)
    )
    tenant = revoked.scalar()
    if tenant is None:
        return False
    note(session, command_actor(tenant, actor), "revoke_key", detail={"key_id": key_id})
    return True


def _hash(secret: str) -> bytes:
    # A plain hash is enough: the secret is 256 random bits, so there is no dictionary to try.
    return hashlib.sha256(secret.encode()).digest()
