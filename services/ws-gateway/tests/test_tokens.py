"""Who gets in."""

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest

from holdfast.gateway.clients.tokens import TokenVerifier, is_allowed
from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Closing

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


# Made when a test runs, not when it is collected: xdist compares what its workers have collected, and a second may pass.
OTHER_TOKENS: dict[str, Callable[[], str]] = {
    "empty": lambda: "",
    "no token": lambda: "no token at all",
    "another secret": lambda: sign(claims(), secret="another-secret-of-at-least-32-bytes!"),
    "another algorithm": lambda: sign(claims(), secret=SECRET * 2, algorithm="HS512"),
    "unsigned": lambda: unsigned(claims()),
    "another audience": lambda: sign(claims(aud="elsewhere")),
    "expired": lambda: sign(claims(exp=int(time.time()) - 60)),
    "from the future": lambda: sign(claims(iat=int(time.time()) + 600)),
    "no topics": lambda: sign(claims(topics=[])),
    "topics as text": lambda: sign(claims(topics="event:*")),
    "a tenant with a colon": lambda: sign(claims(tenant="acme:audience")),
    **{
        f"without {name}": lambda name=name: sign({k: v for k, v in claims().items() if k != name})  # type: ignore[misc]
        for name in claims()
    },
}


@pytest.mark.parametrize("name", OTHER_TOKENS)
def test_any_other_token_is_refused(name: str) -> None:
    token = OTHER_TOKENS[name]()

    with pytest.raises(Closing) as caught:
        TokenVerifier(SECRET).verify(token)

    assert caught.value.code is CloseCode.BAD_TOKEN
    assert not token or token not in caught.value.reason
