"""Live tokens: who a client is, which topics it may see, until when."""

import contextlib
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jwt
from pydantic import ValidationError

from holdfast.domain.errors import InvalidTopic
from holdfast.domain.names import is_tenant
from holdfast.domain.revocation import LONGEST_TOKEN_SECONDS
from holdfast.domain.topics import check_topic, is_granted
from holdfast.gateway.clients.key_set import KeySet, KeyUndecided
from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Closing
from holdfast.messaging.contracts import LiveTokenV1

__all__ = ["TokenVerifier", "allowed_topics", "is_allowed"]

SHARED_ALGORITHM = "HS256"
"""What the shared secret is good for. The algorithm that a token names for itself is its sender's choice (``none``, say),
so it decides nothing."""

LEEWAY_SECONDS = 5
"""A token counts this long before its ``nbf`` and after its ``exp``: clocks differ, and a token takes time on its way."""


class TokenVerifier:
    """Checks tokens against the secret shared with the service that mints them, or against public keys of others that do.

    Args:
        keys_file: a JWK set; a token whose header names one of its keys (``kid``) is checked against that.

    Raises:
        ConfigurationError: the file cannot be read, or holds something else.
    """

    def __init__(self, secret: str, keys_file: Path | None = None) -> None:
        self._secret = secret
        self._keys = None if keys_file is None else KeySet(keys_file)

    def verify(self, token: str) -> LiveTokenV1:
        """Return the claims of a genuine live token that counts now; ``exp`` is then when it ends to count.

        Raises:
            Closing: with 4501 for a token that will never do; with 4004 for one that has expired or does not count yet, and
                with 4008 when its key cannot be looked up at the moment. It says what is wrong but nothing of the token.
        """
        claims = _read_claims(self._payload(token))
        # Revocations are forgotten after a while, so that no token may count for longer than that.
        claims = claims.model_copy(update={"exp": min(claims.exp, claims.iat + LONGEST_TOKEN_SECONDS)})
        _check_times(claims, time.time())
        return claims

    def _payload(self, token: str) -> bytes:
        try:
            key, algorithm = self._key(jwt.get_unverified_header(token))
            payload: bytes = jwt.PyJWS().decode(token, key, algorithms=[algorithm])
        except KeyUndecided:
            raise Closing(
                CloseCode.UNAVAILABLE, "the token's key (kid) is not known yet; connect again later"
            ) from None
        except jwt.InvalidTokenError as exc:
            raise _refusal(f"{type(exc).__name__}; get one from POST /v1/tokens") from None
        except (ValueError, RecursionError):
            raise _refusal("not a JWT; get one from POST /v1/tokens") from None
        return payload

    def _key(self, header: dict[str, Any]) -> tuple[Any, str]:
        """What the token has to be signed with, and how."""
        kid = str(header.get("kid"))
        if self._keys is None or (header.get("alg") == SHARED_ALGORITHM and not self._keys.has(kid)):
            return self._secret, SHARED_ALGORITHM
        jwk = self._keys.find(kid)
        if jwk is None:
            raise _refusal("its kid names no key that is known here")
        return jwk.key, jwk.algorithm_name


def is_allowed(topic: str, claims: LiveTokenV1) -> bool:
    """Whether the token grants this topic."""
    return is_granted(topic, grants=claims.topics, tenant=claims.tenant)


def allowed_topics(names: Iterable[str], claims: LiveTokenV1) -> list[str]:
    """Those that are topics and granted, each once and in its usual spelling."""
    topics: dict[str, None] = {}
    for name in names:
        with contextlib.suppress(InvalidTopic):
            topics[check_topic(name)] = None
    return [topic for topic in topics if is_allowed(topic, claims)]


def _read_claims(payload: bytes) -> LiveTokenV1:
    try:
        claims = LiveTokenV1.model_validate(json.loads(payload))
    except ValidationError as exc:
        raise _refusal(_first_fault(exc)) from None
    except (ValueError, RecursionError):
        raise _refusal("its claims are not JSON") from None
    if not is_tenant(claims.tenant):
        raise _refusal("tenant is no name of a tenant")
    return claims


def _check_times(claims: LiveTokenV1, now: float) -> None:
    """``iat`` is no reason to refuse a token (RFC 7519, section 4.1.6); a clock that is ahead would be one otherwise."""
    if claims.exp <= now - LEEWAY_SECONDS:
        raise Closing(CloseCode.TOKEN_EXPIRED, "the token has expired; connect again with a new one")
    if claims.nbf is not None and claims.nbf > now + LEEWAY_SECONDS:
        raise Closing(CloseCode.TOKEN_EXPIRED, "the token does not count yet (nbf); connect again later with a new one")


def _first_fault(exc: ValidationError) -> str:
    """A claim by its name and what is wrong with it. A close reason has at most 123 bytes, and repeats nothing sent."""
    fault = exc.errors(include_url=False, include_input=False, include_context=False)[0]
    claim = str(fault["loc"][0]) if fault["loc"] else "claims"
    return f"{claim} {fault['msg'].removeprefix('Value error, ')}"[:100]


def _refusal(why: str) -> Closing:
    return Closing(CloseCode.BAD_TOKEN, f"token refused: {why}")
