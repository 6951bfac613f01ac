"""Who gets in."""

import base64
import json
import time
from typing import Any

import jwt
import pytest

from holdfast.gateway.close_codes import CloseCode
from holdfast.gateway.codec import Closing
from holdfast.gateway.tokens import TokenVerifier, is_allowed

SECRET = "a-secret-that-only-these-tests-know"


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    standard = {"aud": "holdfast-live", "sub": "u", "tenant": "acme", "iat": now, "exp": now + 60, "jti": "1"}
    return standard | {"topics": ["audience:user-*", "event:*"]} | changes


def sign(payload: dict[str, Any], *, secret: str = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode(payload, secret, algorithm=algorithm)


def unsigned(payload: dict[str, Any]) -> str:
    parts = [{"alg": "none", "typ": "JWT"}, payload]
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


def test_a_genuine_token_gives_its_claims() -> None:
    verified = TokenVerifier(SECRET).verify(sign(claims()))

    assert (verified.tenant, verified.sub) == ("acme", "u")
    assert is_allowed("audience:user-42", verified)
    assert not is_allowed("audience:boss", verified)
    assert not is_allowed("tenant:acme", verified)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "no token at all",
        sign(claims(), secret="another-secret-of-at-least-32-bytes!"),
        sign(claims(), secret=SECRET * 2, algorithm="HS512"),
        unsigned(claims()),
        sign(claims(aud="elsewhere")),
        sign(claims(exp=int(time.time()) - 60)),
        sign(claims(iat=int(time.time()) + 600)),
        sign(claims(topics=[])),
        sign(claims(topics="event:*")),
        sign(claims(tenant="acme:audience")),
        *(sign({k: v for k, v in claims().items() if k != name}) for name in claims()),
    ],
)
def test_any_other_token_is_refused(token: str) -> None:
    with pytest.raises(Closing) as caught:
        TokenVerifier(SECRET).verify(token)

    assert caught.value.code is CloseCode.BAD_TOKEN
    assert not token or token not in caught.value.reason
