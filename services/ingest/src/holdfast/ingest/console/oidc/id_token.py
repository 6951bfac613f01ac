"""Whether an id token counts: its signature and each claim, as OpenID Connect Core 1.0, section 3.1.3.7, has it."""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from authlib.oidc.core import CodeIDToken
from joserfc import jws, jwt
from joserfc.errors import ClaimError, JoseError, SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey

from holdfast.ingest.console.oidc.failures import SignInFailed

__all__ = ["ALGORITHMS", "PublicKey", "Terms", "claims_of", "key_id_of"]

ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
)  # fmt: skip
"""Signatures by a key that the provider alone has. HS256 would take a public key, or the client's secret, for one; ``none``
takes nothing."""

# RFC 9864 gives it another name, and providers go on with the old one. A warning on stderr would be no line of the log.
warnings.filterwarnings("ignore", "EdDSA is deprecated", SecurityWarning)

MAX_CHARACTERS = 64 * 1024
"""Of a token. Those with hundreds of groups have about 20,000."""

LEEWAY_SECONDS = 60
"""How far the clocks may be apart."""

MAX_AGE_SECONDS = 600
"""Since it was issued: it comes straight from the provider, as the answer to a code."""

PublicKey = RSAKey | ECKey | OKPKey


@dataclass(frozen=True, slots=True)
class Terms:
    """What a token has to say. ``nonce`` is the one that this sign-in sent."""

    issuer: str
    client_id: str
    nonce: str


def key_id_of(token: object) -> str | None:
    """The ``kid`` of a token that may be looked at further.

    Raises:
        SignInFailed: it is no token, or its algorithm is not one of :data:`ALGORITHMS`.
    """
    if not isinstance(token, str) or not token.isascii() or not 0 < len(token) <= MAX_CHARACTERS:
        raise _refused("missing")
    try:
        header = jws.extract_compact(token.encode()).headers()
    except (JoseError, ValueError, RecursionError):
        raise _refused("malformed") from None
    if header.get("alg") not in ALGORITHMS:
        raise _refused("algorithm")
    kid = header.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise _refused("malformed")
    return kid


def claims_of(token: str, keys: Sequence[PublicKey], terms: Terms) -> dict[str, Any]:
    """The claims of a token that counts. ``keys``: those of the provider that its ``kid`` names.

    Raises:
        SignInFailed: which check it failed.
    """
    if len(keys) != 1:
        raise _refused("key")
    try:
        read = jwt.decode(token, keys[0], algorithms=list(ALGORITHMS))
    except (JoseError, ValueError, TypeError, RecursionError):
        raise _refused("signature") from None
    claims = dict(read.claims)
    _check_times(claims)
    options: Any = {
        "iss": {"essential": True, "value": terms.issuer},
        "aud": {"essential": True, "value": terms.client_id},
    }
    checked = CodeIDToken(claims, read.header, options, {"nonce": terms.nonce, "client_id": terms.client_id})
    try:
        checked.validate(now=int(time.time()), leeway=LEEWAY_SECONDS)
    except ClaimError as exc:
        raise _refused(exc.claim if exc.claim in _CLAIMS else "claims") from None
    except (JoseError, ValueError, TypeError):
        raise _refused("claims") from None
    return claims


def _check_times(claims: dict[str, Any]) -> None:
    """Before the library looks at them: it compares, and nothing compares with NaN."""
    now = time.time()
    for name in ("exp", "iat", "nbf"):
        value = claims.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
        if not is_number and not (name == "nbf" and value is None):
            raise _refused(name)
    if claims["iat"] > now + LEEWAY_SECONDS or claims["iat"] < now - MAX_AGE_SECONDS:
        raise _refused("iat")


_CLAIMS = {
    "iss": "its issuer is another one than HOLDFAST_OIDC_ISSUER",
    "aud": "it was issued for another client than HOLDFAST_OIDC_CLIENT_ID",
    "azp": "it was issued for another client than HOLDFAST_OIDC_CLIENT_ID",
    "exp": "it has expired; compare the clocks of both machines",
    "iat": "it was not issued just now; compare the clocks of both machines",
    "nbf": "it does not count yet; compare the clocks of both machines",
    "nonce": "it belongs to another sign-in",
    "sub": "it names nobody",
}
_FAULTS = _CLAIMS | {
    "missing": "there is none in the provider's answer; is openid among HOLDFAST_OIDC_SCOPES?",
    "malformed": "it is no token",
    "algorithm": f"it is signed with another algorithm than {', '.join(ALGORITHMS)}",
    "key": "the provider publishes no key, or several, that it may be signed with",
    "signature": "its signature is not that of the provider",
    "claims": "its claims are not as they must be",
}


def _refused(fault: str) -> SignInFailed:
    return SignInFailed(f"id_token_{fault}", f"The provider's id token does not count: {_FAULTS[fault]}.", status=502)
