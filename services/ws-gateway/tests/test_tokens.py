"""Who gets in."""

import base64
import json
import time
from collections.abc import Callable
from itertools import product
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


def sign(
    payload: dict[str, Any], *, secret: str = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None
) -> str:
    return jwt.encode(payload, secret, algorithm=algorithm, headers=headers)


def signed(payload: bytes) -> str:
    """A genuine signature around any payload."""
    return jwt.PyJWS().encode(payload, SECRET, algorithm="HS256")


def unsigned(payload: dict[str, Any], **header: Any) -> str:
    parts = [{"alg": "none", "typ": "JWT"} | header, payload]
    return ".".join(encoded(json.dumps(part).encode()) for part in parts) + "."


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


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
    "unsigned, in capitals": lambda: unsigned(claims(), alg="NONE"),
    "no algorithm": lambda: unsigned(claims(), alg=None),
    "an unknown critical header": lambda: sign(claims(), headers={"crit": ["exp2"], "exp2": 1}),
    "a header nested deeply": lambda: f"{encoded(b'[' * 5000)}.e30.",
    "a header that is no object": lambda: f"{encoded(b'[]')}.e30.",
    "a kid that is a number": lambda: unsigned(claims(), alg="HS256", kid=7),
    "half a surrogate pair": lambda: "\ud800.e30.",
    "claims that are no JSON": lambda: signed(b"no JSON"),
    "claims nested deeply": lambda: signed(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a list of claims": lambda: signed(b"[]"),
    "another audience": lambda: sign(claims(aud="elsewhere")),
    "a list of other audiences": lambda: sign(claims(aud=["elsewhere", "nowhere"])),
    "an audience in an audience": lambda: sign(claims(aud=[["holdfast-live"]])),
    "no topics": lambda: sign(claims(topics=[])),
    "topics as text": lambda: sign(claims(topics="event:*")),
    "a tenant with a colon": lambda: sign(claims(tenant="acme:audience")),
    "a subject with a line break": lambda: sign(claims(sub="a\nb")),
    "a subject that is too long": lambda: sign(claims(sub="é" * 128)),
    "a token id that is too long to be revoked": lambda: sign(claims(jti="a" * 256)),
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
    assert len(caught.value.reason) <= 123, "a close frame has no room for more"


PASSING: dict[str, dict[str, float]] = {
    "expired a minute ago": {"exp": -60},
    "expired on its way, with a fraction": {"exp": -5.5},
    "not good before a minute from now": {"nbf": 60},
    "issued a day ago, whatever its end": {"iat": -86_500, "exp": 86_400 * 30},
}


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_no_reason_to_stay_away(name: str) -> None:
    moments = {claim: time.time() + seconds for claim, seconds in PASSING[name].items()}

    with pytest.raises(Closing) as caught:
        TokenVerifier(SECRET).verify(sign(claims(**moments)))

    assert caught.value.code is CloseCode.TOKEN_EXPIRED
    assert not caught.value.code.is_terminal
    assert "new one" in caught.value.reason


@pytest.mark.parametrize(
    "changes",
    [
        {"iat": 8},
        {"iat": 3600},
        {"iat": 0.25},
        {"exp": -2},
        {"exp": 60.5},
        {"nbf": 3},
        {"nbf": -60.75},
        {"exp": 90_000_000},
    ],
    ids=str,
)
def test_moments_are_read_as_rfc_7519_says(changes: dict[str, float]) -> None:
    moments = {claim: time.time() + seconds for claim, seconds in changes.items()}

    verified = TokenVerifier(SECRET).verify(sign(claims(**moments)))

    assert verified.exp <= verified.iat + 86_400, "revocations are kept for a token's longest life"


@pytest.mark.parametrize("aud", ["holdfast-live", ["holdfast-live"], ["another", "holdfast-live"]], ids=str)
def test_the_audience_is_a_name_or_a_list_of_names(aud: Any) -> None:
    assert TokenVerifier(SECRET).verify(sign(claims(aud=aud))).sub == "u"


NO_MOMENTS = ["text", "milliseconds", "true", "NaN", "Infinity", "-Infinity", "-1", "1e400", "1" * 400, "[]", '"soon"']


@pytest.mark.parametrize(
    ("claim", "json_text"), [*product(["exp", "iat", "nbf"], NO_MOMENTS), ("exp", "null"), ("iat", "null")]
)
def test_a_moment_that_is_no_number_of_seconds_is_refused_by_its_name(claim: str, json_text: str) -> None:
    now = int(time.time()) + 30
    value = {"text": f'"{now}"', "milliseconds": f"{now}000"}.get(json_text, json_text)
    payload = json.dumps(claims(**{claim: "HERE"})).replace('"HERE"', value).encode()

    with pytest.raises(Closing) as caught:
        TokenVerifier(SECRET).verify(signed(payload))

    assert caught.value.code is CloseCode.BAD_TOKEN
    assert f"{claim} takes seconds since 1970 as a number" in caught.value.reason
    assert value not in caught.value.reason


@pytest.mark.parametrize("typ", ["JWT", "at+jwt", "jwt", None])
def test_the_type_of_a_token_decides_nothing(typ: str | None) -> None:
    assert TokenVerifier(SECRET).verify(sign(claims(), headers={"typ": typ})).sub == "u"


@pytest.mark.parametrize("sub", ["👩\u200d👩\u200d👧", "a" * 255, "\u2028"], ids=ascii)
def test_any_unicode_without_controls_is_a_subject(sub: str) -> None:
    assert TokenVerifier(SECRET).verify(sign(claims(sub=sub))).sub == sub
