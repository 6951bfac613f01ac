"""Public keys of other token issuers, in a file that may change while the gateway runs."""

import math
import time
from pathlib import Path

import jwt
from jwt import PyJWK

from holdfast.domain.errors import ConfigurationError
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = ["KeySet", "KeyUndecided", "read_keys"]

log = logging.get(__name__)

KEY_ALGORITHMS = frozenset({"RS256", "PS256", "ES256", "EdDSA"})
"""Allow-list: each key is good for one algorithm, whatever a token names for itself."""

REREAD_SECONDS = 1.0
"""Between two readings of the file: anybody can name a key that does not exist."""


class KeyUndecided(Exception):
    """A key is not known, and it cannot be said at the moment whether the file has it."""


class KeySet:
    """The keys in a JWK set (RFC 7517). The file is read again when a token names a key that is not known.

    Raises:
        ConfigurationError: the file cannot be read, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys = read_keys(path)
        self._read_at = -math.inf
        self._is_broken = False

    def has(self, kid: str) -> bool:
        """Whether a key of this id is known already."""
        return kid in self._keys

    def find(self, kid: str) -> PyJWK | None:
        """The key of this id; ``None`` when the file does not have it.

        Raises:
            KeyUndecided: the file was read a moment ago, or cannot be read.
        """
        if not self.has(kid):
            self._read_again()
        return self._keys.get(kid)

    def _read_again(self) -> None:
        now = time.monotonic()
        if now - self._read_at < REREAD_SECONDS:
            raise KeyUndecided
        self._read_at = now
        try:
            self._keys = read_keys(self._path)
        except ConfigurationError as exc:
            if not self._is_broken:
                log.warning(Log.KEYS_NOT_READ, reason=str(exc))
            self._is_broken = True
            raise KeyUndecided from exc
        self._is_broken = False


def read_keys(path: Path) -> dict[str, PyJWK]:
    """The public keys in a JWK set (RFC 7517), by their ids.

    Raises:
        ConfigurationError: the file cannot be read, or holds something else.
    """
    try:
        keys = jwt.PyJWKSet.from_json(path.read_text()).keys
    except (OSError, ValueError, AttributeError, jwt.PyJWTError) as exc:
        raise _bad_keys(path, str(exc)) from exc
    for key in keys:
        if key.algorithm_name not in KEY_ALGORITHMS:
            raise _bad_keys(path, f"{key.algorithm_name} is not one of {', '.join(sorted(KEY_ALGORITHMS))}")
        if not key.key_id:
            raise _bad_keys(path, "a key has no kid, by which tokens name it")
    by_id = {str(key.key_id): key for key in keys}
    if len(by_id) < len(keys):
        raise _bad_keys(path, "two keys have the same kid")
    return by_id


def _bad_keys(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(f"HOLDFAST_LIVE_TOKEN_KEYS: {path} is no JWK set with public keys: {why}")
