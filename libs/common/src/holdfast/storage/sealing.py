"""Sealing the data of events: with which key, and where that is kept.

A tenant's data is sealed by its data key, which the table ``data_key`` keeps wrapped by a key-encryption key that only
processes have. A session brings its :class:`Sealing` along, in its ``info``; without one nothing is sealed and nothing opens.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from holdfast.domain.encryption_keys import KEY_BYTES, read_keys
from holdfast.domain.errors import ConfigurationError, DataUnreadable, KeyMissing
from holdfast.runtime.expiring import Expiring
from holdfast.runtime.ids import uuid7

__all__ = [
    "CACHE_SECONDS",
    "INFO",
    "Purpose",
    "Sealed",
    "Sealing",
    "check_keys",
    "key_context",
    "open_sealing",
    "sealing_of",
    "unsealed",
    "with_sealing",
]

INFO = "holdfast.sealing"
"""Where a session keeps its :class:`Sealing`."""

CACHE_SECONDS = 60.0
"""How long a process goes on with a data key before it looks at the table again."""

MOST_CACHED = 1000
"""Data keys that a process remembers; of more tenants it asks PostgreSQL for each again."""

KEY_DAYS = 30
"""Age at which a tenant gets another data key. At 1,600 events a second that is 4.1 thousand million, within the 2 ** 32 of a
key with random nonces."""

_FIND = text("""
-- Parameters: id.
SELECT id, tenant, wrapped, kek_id FROM data_key WHERE id = :id
""")

_ACTIVE = text("""
-- Parameters: tenant; days.
SELECT id, tenant, wrapped, kek_id, created_at < now() - make_interval(days => :days) AS is_old
FROM data_key WHERE tenant = :tenant AND retired_at IS NULL
""")

_RETIRE = text("""
-- Parameters: id. A second one waits here for the first, and finds nothing to do.
UPDATE data_key SET retired_at = now() WHERE id = :id AND retired_at IS NULL
""")

_CREATE = text("""
INSERT INTO data_key (id, tenant, wrapped, kek_id) VALUES (:id, :tenant, :wrapped, :kek_id)
ON CONFLICT (tenant) WHERE retired_at IS NULL DO NOTHING
""")

_FOREIGN = text("""
-- Parameters: ids, of the keys that this process has. Goes through the index on kek_id from key to key: data keys are many.
WITH RECURSIVE used AS (
    SELECT min(kek_id) AS kek_id FROM data_key
    UNION ALL
    SELECT (SELECT min(kek_id) FROM data_key WHERE kek_id > used.kek_id) FROM used WHERE used.kek_id IS NOT NULL
)
SELECT kek_id FROM used WHERE kek_id IS NOT NULL AND kek_id <> ALL (CAST(:ids AS text[])) ORDER BY kek_id
""")

_DURABLE = text("SET LOCAL synchronous_commit = on")


class Sealed(NamedTuple):
    """Sealed bytes, and the data key that they open with."""

    key_id: UUID
    content: bytes


class Purpose(NamedTuple):
    """What bytes are the data of. They open for the same purpose only.

    ``kind``: ``event`` or ``event_group``; ``is_json``: what the bytes are, which is stored beside them.
    """

    kind: str
    id: UUID
    tenant: str
    is_json: bool

    def context(self, key_id: UUID) -> bytes:
        """As associated data."""
        # A tenant has no "/"; everything else has a fixed length.
        parts = (self.kind, key_id.hex, self.id.hex, "json" if self.is_json else "bytes", self.tenant)
        return "/".join(parts).encode()


class Sealing:
    """Seals and opens with the data keys of tenants, from any number of threads.

    Args:
        keys: key-encryption keys, the current one first.
        is_sealing: ``False``: what is new stays plain; what is sealed opens.
    """

    def __init__(self, keys: Sequence[bytes], *, is_sealing: bool = True) -> None:
        # Not before: a process without keys does not load a library of 10 MB.
        from holdfast.runtime import sealing

        self.is_sealing = is_sealing
        self.ring = sealing.KeyRing(keys)
        self._broken = sealing.Broken
        self._cipher: Callable[[bytes], sealing.Cipher] = sealing.Cipher
        self._by_id: Expiring[UUID, sealing.Cipher] = Expiring(CACHE_SECONDS, most=MOST_CACHED)
        self._current: Expiring[str, UUID] = Expiring(CACHE_SECONDS, most=MOST_CACHED)

    def seal(self, session: Session, purpose: Purpose, content: bytes) -> Sealed:
        """Bytes of a tenant, sealed with its data key. The first ones of a tenant make that, in a transaction of its own.

        Raises:
            KeyMissing: the data key is wrapped by a key that this process lacks.
        """
        key_id = self._current.get(purpose.tenant)
        cipher = None if key_id is None else self._by_id.get(key_id)
        if key_id is None or cipher is None:
            key_id, cipher = self._find_current(session, purpose.tenant)
        return Sealed(key_id, cipher.seal(content, purpose.context(key_id)))

    def open(self, session: Session, purpose: Purpose, sealed: Sealed) -> bytes:
        """What was sealed.

        Raises:
            KeyMissing: the data key is wrapped by a key that this process lacks.
            DataUnreadable: the bytes, their row or their data key are not what they were.
        """
        cipher = self._by_id.get(sealed.key_id)
        if cipher is None:
            row = session.execute(_FIND, {"id": sealed.key_id}).one_or_none()
            if row is None:
                raise DataUnreadable(f"its data key {sealed.key_id} is not there any more: what it sealed is lost")
            cipher = self._unwrapped(row)
        try:
            return cipher.open(sealed.content, purpose.context(sealed.key_id))
        except self._broken:
            raise DataUnreadable(
                f"its sealed data does not open with data key {sealed.key_id}: the row was changed by somebody else;"
                " restore it from a backup, then replay the event"
            ) from None

    def rotate(self, session: Session, tenant: str, retired_id: UUID | None) -> UUID:
        """In this transaction, give a tenant a data key in place of ``retired_id``; what is its current one then.

        Of two who replace one key the second gets what the first has made.
        """
        session.execute(_DURABLE)
        if retired_id is not None:
            session.execute(_RETIRE, {"id": retired_id})
        made, data_key = uuid7(), os.urandom(KEY_BYTES)
        wrapped = self.ring.wrap(data_key, key_context(made, tenant))
        session.execute(_CREATE, {"id": made, "tenant": tenant, "wrapped": wrapped, "kek_id": self.ring.current_id})
        current: UUID = _active(session, tenant).id
        return current

    def data_key(self, row: Row[Any]) -> bytes:
        """The data key of a row of ``data_key``.

        Raises:
            KeyMissing, DataUnreadable: as :meth:`open`.
        """
        try:
            return self.ring.unwrap(bytes(row.wrapped), row.kek_id, key_context(row.id, row.tenant))
        except KeyError:
            raise KeyMissing(
                f"data of tenant {row.tenant!r} is sealed under the key {row.kek_id}, which is not in"
                f" HOLDFAST_ENCRYPTION_KEYS of this process (it has {', '.join(self.ring.ids)}): add it there"
            ) from None
        except self._broken:
            raise DataUnreadable(f"data key {row.id} does not open: its row in data_key was changed") from None

    def _find_current(self, session: Session, tenant: str) -> Any:
        row = session.execute(_ACTIVE, {"tenant": tenant, "days": KEY_DAYS}).one_or_none()
        if row is None or row.is_old:
            # Committed before anything is sealed with it: the caller's transaction may be rolled back, or last for hours.
            with Session(session.get_bind().engine) as own, own.begin():
                self.rotate(own, tenant, None if row is None else row.id)
                row = _active(own, tenant)
        cipher = self._unwrapped(row)
        self._current.put(tenant, row.id)
        return row.id, cipher

    def _unwrapped(self, row: Row[Any]) -> Any:
        cipher = self._cipher(self.data_key(row))
        self._by_id.put(row.id, cipher)
        return cipher


def open_sealing(keys: str | None, *, is_sealing: bool = True) -> Sealing | None:
    """What a process seals and opens with; ``None`` without keys. ``keys`` as in ``HOLDFAST_ENCRYPTION_KEYS``.

    Raises:
        ConfigurationError: they are none, or ``cryptography`` is not installed.
    """
    if keys is None:
        return None
    try:
        return Sealing(read_keys(keys), is_sealing=is_sealing)
    except ValueError as exc:
        raise ConfigurationError(f"encryption keys: {exc}") from None
    except ImportError as exc:
        raise ConfigurationError(f"sealing needs 'pip install holdfast-common[sealing]': {exc}") from exc


def sealing_of(session: Session) -> Sealing | None:
    """What this session seals and opens with."""
    found: Sealing | None = session.info.get(INFO)
    return found


@contextmanager
def with_sealing(session: Session, sealing: Sealing | None) -> Iterator[None]:
    """Within the block the session, which may be a stranger's, seals and opens with this."""
    before = session.info.get(INFO)
    session.info[INFO] = sealing
    try:
        yield
    finally:
        session.info[INFO] = before


def unsealed(session: Session, purpose: Purpose, content: bytes, key_id: UUID | None) -> bytes:
    """Stored bytes as they were given; ``key_id`` is ``None`` for those that are not sealed.

    Raises:
        KeyMissing, DataUnreadable: as :meth:`Sealing.open`.
    """
    if key_id is None:
        return content
    sealing = sealing_of(session)
    if sealing is None:
        raise KeyMissing(
            f"the data of {purpose.kind} {purpose.id} is sealed, and this process has no HOLDFAST_ENCRYPTION_KEYS:"
            " give it the keys of the services"
        )
    return sealing.open(session, purpose, Sealed(key_id, content))


def check_keys(session: Session) -> None:
    """Make sure that every data key is wrapped by a key that this session's process has.

    Raises:
        KeyMissing: the message names the keys, and the remedy.
    """
    sealing = sealing_of(session)
    foreign = session.scalars(_FOREIGN, {"ids": [] if sealing is None else sealing.ring.ids}).all()
    if foreign:
        raise KeyMissing(
            f"data is sealed under {', '.join(foreign)}, which HOLDFAST_ENCRYPTION_KEYS of this process does not have: give"
            " it the keys of the other services"
        )


def key_context(key_id: UUID, tenant: str) -> bytes:
    """What a wrapped data key is bound to."""
    return f"data_key/{key_id.hex}/{tenant}".encode()


def _active(session: Session, tenant: str) -> Row[Any]:
    return session.execute(_ACTIVE, {"tenant": tenant, "days": KEY_DAYS}).one()
