"""What the provider says of itself: its addresses and its keys, kept for a while."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

from holdfast.ingest.console.oidc.failures import SignInFailed
from holdfast.ingest.console.oidc.fetching import Fetcher
from holdfast.ingest.console.oidc.id_token import PublicKey

__all__ = ["METADATA_SECONDS", "REFRESH_SECONDS", "Metadata", "Provider"]

METADATA_SECONDS = 3600.0
KEYS_SECONDS = 600.0
"""After this a key that the provider has withdrawn does not count any more."""

REFRESH_SECONDS = 60.0
"""Between two looks for a key that is not among the known ones."""

PAUSE_SECONDS = 5.0
"""After a failure the provider is left alone for as long, and the answer is the same: it holds no thread."""

MAX_KEYS = 64
MIN_RSA_BITS = 2048


Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Metadata:
    """Of ``/.well-known/openid-configuration`` (OpenID Connect Discovery 1.0, section 3) what a sign-in needs.

    ``promises_issuer``: it names itself in every answer (RFC 9207).
    """

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    auth_methods: tuple[str, ...]
    promises_issuer: bool


class Provider:
    """One provider. Several threads may ask at once; what one has fetched serves the others.

    Args:
        issuer: as it calls itself.
        clock: monotonic seconds.
    """

    def __init__(self, issuer: str, fetcher: Fetcher, clock: Callable[[], float] = time.monotonic) -> None:
        self.issuer = issuer
        self._fetcher = fetcher
        self._clock = clock
        self._lock = threading.Lock()
        self._metadata: tuple[float, Metadata] | None = None
        self._keys: tuple[float, dict[str | None, list[PublicKey]]] | None = None
        self._refreshed_at = float("-inf")
        self._failure: tuple[float, SignInFailed] | None = None

    def metadata(self, deadline: float) -> Metadata:
        """Its addresses.

        Raises:
            SignInFailed: it is away, or says something else than it must.
        """
        known = self._metadata
        if known is not None and self._clock() < known[0] + METADATA_SECONDS:
            return known[1]
        address = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"
        found = self._watched(lambda: _metadata(self._fetcher.get(address, deadline=deadline).document, self.issuer))
        self._metadata = (self._clock(), found)
        return found

    def keys(self, key_id: str | None, deadline: float) -> list[PublicKey]:
        """The keys with this ``kid``; without one, all. Looks again for one that it does not know, once a minute.

        Raises:
            SignInFailed: as for :meth:`metadata`.
        """
        address = self.metadata(deadline).jwks_uri
        known = self._keys
        if known is None or self._clock() >= known[0] + KEYS_SECONDS:
            known = self._fetch_keys(address, deadline)
        if not _chosen(known[1], key_id) and self._may_refresh():
            known = self._fetch_keys(address, deadline)
        return _chosen(known[1], key_id)

    def _may_refresh(self) -> bool:
        with self._lock:
            if self._clock() < self._refreshed_at + REFRESH_SECONDS:
                return False
            self._refreshed_at = self._clock()
            return True

    def _fetch_keys(self, address: str, deadline: float) -> tuple[float, dict[str | None, list[PublicKey]]]:
        document = self._watched(lambda: self._fetcher.get(address, deadline=deadline).document)
        self._keys = fetched = (self._clock(), _public_keys(document))
        return fetched

    def _watched(self, fetch: Callable[[], Found]) -> Found:
        failure = self._failure
        if failure is not None and self._clock() < failure[0] + PAUSE_SECONDS:
            raise SignInFailed(failure[1].code, failure[1].text, status=failure[1].status)
        try:
            found = fetch()
        except SignInFailed as exc:
            if exc.code != "provider_busy":
                self._failure = (self._clock(), exc)
            raise
        self._failure = None
        return found


def _metadata(document: dict[str, Any], issuer: str) -> Metadata:
    if document.get("issuer") != issuer:
        raise _unfit("it calls itself otherwise than HOLDFAST_OIDC_ISSUER, to the last slash")
    addresses = [document.get(name) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
    if not all(_is_address(each, issuer) for each in addresses):
        raise _unfit("its addresses are missing, or do not begin with https://")
    methods = document.get("token_endpoint_auth_methods_supported")
    named = tuple(each for each in methods if isinstance(each, str)) if isinstance(methods, list) else ()
    promises = document.get("authorization_response_iss_parameter_supported") is True
    authorization, token, jwks = map(str, addresses)
    return Metadata(authorization, token, jwks, named, promises)


def _is_address(value: object, issuer: str) -> bool:
    """Whether secrets may go there: by TLS, unless the provider itself is an address of this machine without."""
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
        return False
    try:
        parts, own = urlsplit(value), urlsplit(issuer)
        is_local = own.scheme == "http" and parts.scheme == "http" and parts.hostname == own.hostname
        is_whole = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
    return is_whole and "@" not in parts.netloc and not parts.fragment and (parts.scheme == "https" or is_local)


def _public_keys(document: dict[str, Any]) -> dict[str | None, list[PublicKey]]:
    """By ``kid``. What is no public key for signatures is left out: providers publish others beside them."""
    listed = document.get("keys")
    found: dict[str | None, list[PublicKey]] = {}
    for each in listed[:MAX_KEYS] if isinstance(listed, list) else []:
        key = _public_key(each)
        if key is not None:
            found.setdefault(key.kid, []).append(key)
    return found


def _public_key(value: object) -> PublicKey | None:
    if not isinstance(value, dict) or value.get("use", "sig") != "sig":
        return None
    try:
        key = JWKRegistry.import_key(value)
        is_strong = not isinstance(key, RSAKey) or key.public_key.key_size >= MIN_RSA_BITS
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return key if isinstance(key, RSAKey | ECKey | OKPKey) and is_strong else None


def _chosen(keys: dict[str | None, list[PublicKey]], key_id: str | None) -> list[PublicKey]:
    return keys.get(key_id, []) if key_id is not None else [key for same in keys.values() for key in same]


def _unfit(fault: str) -> SignInFailed:
    text = f"The sign-in provider's description of itself does not fit: {fault}. Sign in with an API key until it is mended."
    return SignInFailed("provider_unfit", text, status=503)
