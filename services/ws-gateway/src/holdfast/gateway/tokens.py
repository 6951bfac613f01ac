"""Live tokens: who a client is, which topics it may see, until when."""

import contextlib
import re
from collections.abc import Iterable

import jwt
from pydantic import ValidationError

from holdfast.domain.errors import InvalidTopic
from holdfast.domain.topics import check_topic, is_granted
from holdfast.gateway.close_codes import CloseCode
from holdfast.gateway.codec import Closing
from holdfast.messaging.contracts import LIVE_AUDIENCE, LiveTokenV1

__all__ = ["TokenVerifier", "allowed_topics", "is_allowed"]

ALGORITHMS = ["HS256"]
"""An allow-list. The algorithm that a token names for itself is its sender's choice (``none``, say)."""

REQUIRED = ["aud", "sub", "tenant", "iat", "exp", "jti", "topics"]

LEEWAY_SECONDS = 5
"""The minting service's clock may be this far ahead, or a token this long on its way."""

_TENANT = re.compile(r"[A-Za-z0-9._-]{1,63}", re.ASCII)
"""What ``keys create`` admits. A colon here would let one tenant's names in Redis run into another's."""


class TokenVerifier:
    """Checks tokens against the secret shared with the service that mints them."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def verify(self, token: str) -> LiveTokenV1:
        """Return the claims of a genuine, unexpired live token.

        Raises:
            Closing: with 4501, saying what is wrong but nothing of the token.
        """
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=ALGORITHMS,
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
