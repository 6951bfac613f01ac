"""API keys: ``Authorization: Bearer hf_<key id>_<secret>``."""

import threading
import time

import structlog
from flask import current_app, request

from holdfast.ingest.connection import reconnecting
from holdfast.ingest.http.problems import Problem
from holdfast.storage import keys
from holdfast.storage.database import Database
from holdfast.storage.keys import KeyHolder

__all__ = ["Authenticator", "is_operator", "require"]

_MAX_CACHED = 10_000
"""Key ids remembered, unknown ones included: bounds what a guesser can make this process keep."""


class Authenticator:
    """Finds the holder of a key, asking the database at most every ``cache_seconds`` per key id.

    The cache holds hashes, not secrets: the secret is compared at every request.
    """

    def __init__(self, database: Database, *, cache_seconds: float) -> None:
        self._database = database
        self._cache_seconds = cache_seconds
        self._cache: dict[str, tuple[float, KeyHolder | None]] = {}
        self._lock = threading.Lock()

    def holder(self, authorization: str | None) -> KeyHolder:
        """Who is asking.

        Raises:
            Problem: 401, always the same whatever is wrong with the key.
            DatabaseUnavailable: the key is not cached and can not be looked up.
        """
        scheme, _, credential = (authorization or "").partition(" ")
        parsed = keys.parse_key(credential.strip()) if scheme.lower() == "bearer" else None
        holder = self._find(parsed[0]) if parsed else None
        if parsed is None or holder is None or not keys.is_secret_of(holder, parsed[1]):
            detail = "send 'Authorization: Bearer hf_…' with an active key; 'holdfast keys create' makes one"
            raise Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="holdfast"'})
        return holder

    def _find(self, key_id: str) -> KeyHolder | None:
        now = time.monotonic()
        with self._lock:
            expires, holder = self._cache.get(key_id, (0.0, None))
        if now < expires:
            return holder
        holder = reconnecting(lambda: self._look_up(key_id))
        with self._lock:
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            self._cache[key_id] = (now + self._cache_seconds, holder)
        return holder

    def _look_up(self, key_id: str) -> KeyHolder | None:
        with self._database.transaction() as session:
            return keys.find_key(session, key_id)


def require(scope: str) -> KeyHolder:
    """The holder of the request's key, which must have ``scope`` (or ``admin``). Logs name its tenant from here on.

    Raises:
        Problem: 401 or 403.
    """
    authenticator: Authenticator = current_app.extensions["holdfast"].authenticator
    holder = authenticator.holder(request.headers.get("Authorization"))
    structlog.contextvars.bind_contextvars(tenant=holder.tenant)
    if not holder.scopes & {scope, "admin"}:
        raise Problem(403, "forbidden", f"this key lacks the scope {scope}; create one that has it")
    return holder


def is_operator(holder: KeyHolder) -> bool:
    """Whether the holder may see the texts of errors, which may quote payloads."""
    return bool(holder.scopes & {"operate", "admin"})
