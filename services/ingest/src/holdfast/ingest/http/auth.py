"""API keys: ``Authorization: Bearer hf_<key id>_<secret>``."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from flask import request

from holdfast.ingest.connection import reconnecting
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.problems import Problem
from holdfast.storage import keys
from holdfast.storage.database import Database
from holdfast.storage.keys import KeyHolder

__all__ = ["Authenticator", "is_operator", "require"]

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="holdfast"'}

_MAX_CACHED = 10_000
"""Key ids remembered, unknown ones included: bounds what a guesser can make this process keep."""


NOTE_USE_SECONDS = 60.0
"""Between two notes of one key's last use."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found for a key id, and when (on the monotonic clock)."""

    at: float
    holder: KeyHolder | None

    def is_expired(self, now: float) -> bool:
        left = self.holder.seconds_left if self.holder else None
        return left is not None and now - self.at >= left


class Authenticator:
    """Finds the holder of a key, asking the database at most every ``cache_seconds`` per key id.

    The cache holds hashes, not secrets: the secret is compared at every request.
    """

    def __init__(
        self, database: Database, *, cache_seconds: float, note_use: Callable[[str], None] = lambda _: None
    ) -> None:
        """``note_use`` is called with a key id when it is used, at most once a minute for each; it must not wait."""
        self._database = database
        self._note_use = note_use
        self._noted: dict[str, float] = {}
        self._cache_seconds = cache_seconds
        self._cache: dict[str, _Known] = {}
        self._lock = threading.Lock()

    def holder(self, authorization: str | None) -> KeyHolder:
        """Who is asking.

        Raises:
            Problem: 401, the same whatever is wrong with the key; only who has its secret learns that it has expired.
            DatabaseUnavailable: the key is not cached and cannot be looked up.
        """
        scheme, _, credential = (authorization or "").partition(" ")
        parsed = keys.parse_key(credential.strip()) if scheme.lower() == "bearer" else None
        known = self._find(parsed[0]) if parsed else None
        holder = known.holder if known else None
        if parsed is None or known is None or holder is None or not keys.is_secret_of(holder, parsed[1]):
            detail = "send 'Authorization: Bearer hf_…' with an active key; 'holdfast keys create' makes one"
            raise Problem(401, "unauthorized", detail, headers=_CHALLENGE)
        if known.is_expired(time.monotonic()):
            raise Problem(401, "key_expired", "this key has expired; create another one", headers=_CHALLENGE)
        self._used(holder.key_id)
        return holder

    def standing(self, key_id: str) -> KeyHolder | None:
        """The holder of a key whose secret was shown before, as a session's was; ``None`` once it is revoked or expired.

        Raises:
            DatabaseUnavailable: the key is not cached and cannot be looked up.
        """
        known = self._find(key_id)
        if known.holder is None or known.is_expired(time.monotonic()):
            return None
        self._used(key_id)
        return known.holder

    def _find(self, key_id: str) -> _Known:
        now = time.monotonic()
        with self._lock:
            known = self._cache.get(key_id)
        if known is not None and now < known.at + self._cache_seconds:
            return known
        # The time from before the question: a key is never taken to live longer than it does.
        known = _Known(now, reconnecting(lambda: self._look_up(key_id)))
        with self._lock:
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            self._cache[key_id] = known
        return known

    def _used(self, key_id: str) -> None:
        now = time.monotonic()
        with self._lock:
            if now < self._noted.get(key_id, float("-inf")) + NOTE_USE_SECONDS:
                return
            if len(self._noted) >= _MAX_CACHED:
                self._noted.clear()
            self._noted[key_id] = now
        self._note_use(key_id)

    def _look_up(self, key_id: str) -> KeyHolder | None:
        with self._database.transaction() as session:
            return keys.find_key(session, key_id)


def require(scope: str) -> KeyHolder:
    """The holder of the request's key, which must have ``scope`` (or ``admin``). Logs name its tenant from here on.

    Raises:
        Problem: 401 or 403.
    """
    authenticator: Authenticator = parts().authenticator
    holder = authenticator.holder(request.headers.get("Authorization"))
    structlog.contextvars.bind_contextvars(tenant=holder.tenant)
    if not holder.scopes & {scope, "admin"}:
        raise Problem(403, "forbidden", f"this key lacks the scope {scope}; create one that has it")
    return holder


def is_operator(holder: KeyHolder) -> bool:
    """Whether the holder may see the texts of errors, which may quote payloads."""
    return bool(holder.scopes & {"operate", "admin"})
