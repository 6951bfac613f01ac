"""Tokens of other issuers, who sign with keys of which the gateway knows the public half."""

import base64
import contextlib
import hmac
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from holdfast.domain.errors import ConfigurationError
from holdfast.gateway.clients.key_set import read_keys
from holdfast.gateway.clients.tokens import TokenVerifier
from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Closing

SECRET = "a-secret-that-only-these-tests-know"

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
PUBLIC: dict[str, dict[str, Any]] = {
    "rsa": RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True) | {"alg": "RS256"},
    "ec": ECAlgorithm.to_jwk(EC.public_key(), as_dict=True) | {"alg": "ES256"},
    "ed": OKPAlgorithm.to_jwk(ED.public_key(), as_dict=True) | {"alg": "EdDSA"},
}
SIGNING: dict[str, tuple[Any, str]] = {"rsa": (RSA, "RS256"), "ec": (EC, "ES256"), "ed": (ED, "EdDSA")}


def claims() -> dict[str, Any]:
    now = int(time.time())
    standard = {"aud": "holdfast-live", "sub": "u", "tenant": "acme", "iat": now, "exp": now + 60, "jti": "1"}
    return standard | {"topics": ["audience:u"]}


def sign(kid: str, *, named: str | None = None) -> str:
    key, algorithm = SIGNING[kid]
    return jwt.encode(claims(), key, algorithm=algorithm, headers={"kid": named or kid})


def forged() -> str:
    """Signed with the public key's text, which PyJWT itself refuses to do."""
    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "typ": "JWT", "kid": "rsa"}, claims())]
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    signature = base64.urlsafe_b64encode(hmac.digest(pem, signed, "sha256")).rstrip(b"=")
    return (signed + b"." + signature).decode()


def key_set(*keys: dict[str, Any]) -> str:
    return json.dumps({"keys": list(keys)})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    path.write_text(key_set(*({**key, "kid": kid} for kid, key in PUBLIC.items())))
    return path


@pytest.mark.parametrize("kid", SIGNING)
def test_a_token_signed_with_a_known_key_gets_in(file: Path, kid: str) -> None:
    assert TokenVerifier(SECRET, file).verify(sign(kid)).tenant == "acme"


def test_a_token_signed_with_the_secret_still_gets_in(file: Path) -> None:
    token = jwt.encode(claims(), SECRET, algorithm="HS256")

    assert TokenVerifier(SECRET, file).verify(token).sub == "u"


STRANGERS: dict[str, Callable[[], str]] = {
    "a key that is not known": lambda: sign("rsa", named="other"),
    "another key's name": lambda: sign("ec", named="rsa"),
    # The public key is public: as a secret it must be worth nothing.
    "the public key as a secret": forged,
    "the secret under a key's name": lambda: jwt.encode(claims(), SECRET, algorithm="HS256", headers={"kid": "rsa"}),
    "a kid that is no text": lambda: jwt.encode(claims(), SECRET + "x", algorithm="HS256", headers={"kid": ""}),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_any_other_signature_is_refused(file: Path, name: str) -> None:
    with pytest.raises(Closing) as caught:
        TokenVerifier(SECRET, file).verify(STRANGERS[name]())

    assert caught.value.code is CloseCode.BAD_TOKEN


def refusal(verifier: TokenVerifier, token: str) -> CloseCode:
    with pytest.raises(Closing) as caught:
        verifier.verify(token)
    return caught.value.code


def test_a_key_that_was_added_later_is_found_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(key_set({**PUBLIC["rsa"], "kid": "rsa"}))
    verifier = TokenVerifier(SECRET, file)
    file.write_text(key_set({**PUBLIC["rsa"], "kid": "rsa"}, {**PUBLIC["ec"], "kid": "ec"}))

    assert verifier.verify(sign("ec")).tenant == "acme"
    assert verifier.verify(sign("rsa")).tenant == "acme"


def test_unknown_keys_do_not_have_the_file_read_each_time_and_are_not_refused_for_good_unread(file: Path) -> None:
    verifier = TokenVerifier(SECRET, file)
    assert refusal(verifier, sign("rsa", named="other")) is CloseCode.BAD_TOKEN
    file.write_text(key_set({**PUBLIC["rsa"], "kid": "other"}))

    # A moment later the file may have it, and is not read again yet.
    assert refusal(verifier, sign("rsa", named="other")) is CloseCode.UNAVAILABLE
    assert verifier.verify(sign("ec")).tenant == "acme"


def test_the_file_is_read_again_after_a_while(file: Path, eventually: Callable[..., Any]) -> None:
    verifier = TokenVerifier(SECRET, file)
    refusal(verifier, sign("rsa", named="other"))
    file.write_text(key_set({**PUBLIC["rsa"], "kid": "other"}))

    def is_taken() -> bool:
        with contextlib.suppress(Closing):
            return verifier.verify(sign("rsa", named="other")).tenant == "acme"
        return False

    eventually(is_taken, timeout_seconds=5)


def test_a_file_that_is_half_written_leaves_the_keys_that_were_read_and_refuses_nothing_for_good(file: Path) -> None:
    verifier = TokenVerifier(SECRET, file)
    file.write_text('{"keys": [')

    assert refusal(verifier, sign("rsa", named="new")) is CloseCode.UNAVAILABLE
    assert verifier.verify(sign("rsa")).tenant == "acme"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no JWK set"),
        ("[]", "no JWK set"),
        (key_set(), "no JWK set"),
        (key_set(PUBLIC["rsa"]), "no kid"),
        (key_set({"kty": "oct", "k": "c2VjcmV0", "kid": "a", "alg": "HS256"}), "HS256 is not one of"),
        (key_set({**PUBLIC["rsa"], "kid": "a"}, {**PUBLIC["ec"], "kid": "a"}), "same kid"),
    ],
    ids=[
        "empty",
        "a list",
        "no keys",
        "no kid",
        "a secret",
        "one kid twice",
    ],  # xdist compares what its workers collected
)
def test_a_file_with_something_else_is_told_at_the_start(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(content)
    environment = {
        "HOLDFAST_LIVE_TOKEN_SECRET": SECRET, "HOLDFAST_LIVE_TOKEN_KEYS": str(path), "HOLDFAST_GATEWAY_PORT": "0",
    }  # fmt: skip

    with pytest.raises(ConfigurationError, match=reason):
        read_keys(path)
    if reason == "same kid":
        done = subprocess.run(
            [sys.executable, "-m", "holdfast.gateway"], env=os.environ | environment, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 78
        assert done.stderr.startswith("HOLDFAST_LIVE_TOKEN_KEYS:")
        assert "Traceback" not in done.stderr
