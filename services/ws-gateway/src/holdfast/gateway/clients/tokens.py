"""Live tokens: who a client is, which topics it may see, until when."""

import contextlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jwt
from jwt import PyJWK
from pydantic import ValidationError

from holdfast.domain.errors import ConfigurationError, InvalidTopic
from holdfast.domain.topics import check_topic, is_granted
from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Closing
from holdfast.messaging.contracts import LIVE_AUDIENCE, LiveTokenV1

__all__ = ["TokenVerifier", "allowed_topics", "is_allowed", "read_keys"]

SHARED_ALGORITHM = "HS256"
KEY_ALGORITHMS = frozenset({"RS256", "PS256", "ES256", "EdDSA"})
"""Allow-lists. The algorithm that a token names for itself is its sender's choice (``none``, say), so it decides nothing: the
secret, and each key, is good for one."""

REQUIRED = ["aud", "sub", "tenant", "iat", "exp", "jti", "topics"]

LEEWAY_SECONDS = 5
"""The minting service's clock may be this far ahead, or a token this long on its way."""

_TENANT = re.compile(r"[A-Za-z0-9._-]{1,63}", re.ASCII)
"""What ``keys create`` admits. A colon here would let one tenant's names in Redis run into another's."""


class TokenVerifier:
    """Checks tokens against the secret shared with the service that mints them, or against public keys of others that do.

    Args:
        keys: by key id, as :func:`read_keys` gives them. A token whose header names one (``kid``) is checked against it.
    """

    def __init__(self, secret: str, keys: Mapping[str, PyJWK] | None = None) -> None:
        self._secret = secret
        self._keys = dict(keys or {})

    def verify(self, token: str) -> LiveTokenV1:
        """Return the claims of a genuine, unexpired live token.

        Raises:
            Closing: with 4501, saying what is wrong but nothing of the token.
        """
        try:
            key, algorithm = self._key(token)
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=LIVE_AUDIENCE,
                leeway=LEEWAY_SECONDS,
                options={"require": REQUIRED},
            )
            verified = LiveTokenV1.model_validate(claims)
        except jwt.InvalidTokenError as exc:
            raise _refusal(type(exc).__name__) from None
        except ValidationError:
            raise _refusal("claims of another shape") from None
        if _TENANT.fullmatch(verified.tenant) is None:
            raise _refusal("impossible tenant")
        return verified

    def _key(self, token: str) -> tuple[Any, str]:
        """What the token has to be signed with, and how."""
        jwk = self._keys.get(str(jwt.get_unverified_header(token).get("kid")))
        return (self._secret, SHARED_ALGORITHM) if jwk is None else (jwk.key, jwk.algorithm_name)


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
    found = {str(key.key_id): key for key in keys}
    if len(found) < len(keys):
        raise _bad_keys(path, "two keys have the same kid")
    return found


def is_allowed(topic: str, claims: LiveTokenV1) -> bool:
    """Whether the token grants this topic."""
    return is_granted(topic, grants=claims.topics, tenant=claims.tenant)


def allowed_topics(names: Iterable[str], claims: LiveTokenV1) -> list[str]:
    """Those that are topics and granted, each once and in its usual spelling."""
    found: dict[str, None] = {}
    for name in names:
        with contextlib.suppress(InvalidTopic):
            found[check_topic(name)] = None
    return [topic for topic in found if is_allowed(topic, claims)]


def _refusal(why: str) -> Closing:
    return Closing(CloseCode.BAD_TOKEN, f"token refused ({why}); get a new one from POST /v1/tokens")


def _bad_keys(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(f"HOLDFAST_LIVE_TOKEN_KEYS: {path} is no JWK set with public keys: {why}")
