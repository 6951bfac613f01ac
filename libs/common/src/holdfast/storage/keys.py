"""API keys: ``hf_<key id>_<secret>``, of which only a hash is stored."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from holdfast.domain.errors import ConfigurationError
from holdfast.domain.names import is_tenant
from holdfast.storage.tables import ApiKey

__all__ = ["SCOPES", "KeyHolder", "create_key", "find_key", "is_secret_of", "parse_key", "revoke_key"]

SCOPES = ("events:write", "events:read", "operate", "admin")

_KEY = re.compile(r"hf_([a-z0-9]{12})_([A-Za-z0-9_-]{43})", re.ASCII)
_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Who a key speaks for. ``secret_hash`` is 32 bytes."""

    key_id: str
    tenant: str
    scopes: frozenset[str]
    secret_hash: bytes


def create_key(
    session: Session, *, tenant: str, name: str, scopes: Sequence[str] = ("events:write", "events:read")
) -> str:
    """Create a key and return it. This is the only time that the whole key exists.

    Raises:
        ConfigurationError: a tenant or scope that cannot be.
    """
    if not is_tenant(tenant):
        raise ConfigurationError("a tenant is 1 to 63 letters, digits, dots, dashes and underscores")
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise ConfigurationError(f"unknown scope {', '.join(unknown) or '(none)'}; there are {', '.join(SCOPES)}")
    key_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(12))
    secret = secrets.token_urlsafe(32)
    session.add(
        ApiKey(id=key_id, tenant=tenant, name=name, scopes=sorted(set(scopes)), secret_hash=_hash(secret))
    )  # fmt: skip
    session.flush()
    return f"hf_{key_id}_{secret}"


def parse_key(text: str) -> tuple[str, str] | None:
    """``(key id, secret)``, or ``None`` for a text that is no key."""
    match = _KEY.fullmatch(text)
    return (match[1], match[2]) if match else None


def find_key(session: Session, key_id: str) -> KeyHolder | None:
    """The holder of a key that exists and is not revoked. Says nothing about the secret: see :func:`is_secret_of`."""
    row = session.scalar(select(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None)))
    return KeyHolder(row.id, row.tenant, frozenset(row.scopes), row.secret_hash) if row else None


def is_secret_of(holder: KeyHolder, secret: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(holder.secret_hash, _hash(secret))


def revoke_key(session: Session, key_id: str) -> bool:
    """Revoke a key; ``False`` when there is no such key, or it was revoked before."""
    revoked = session.execute(
        update(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=func.now())
        .returning(ApiKey.id)
    )
    return revoked.first() is not None


def _hash(secret: str) -> bytes:
    # A plain hash is enough: the secret is 256 random bits, so there is no dictionary to try.
    return hashlib.sha256(secret.encode()).digest()
