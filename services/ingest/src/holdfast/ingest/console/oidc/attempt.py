"""A sign-in on its way: what the browser keeps while its user is at the provider, so that the answer is known to be to it."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from itsdangerous import BadData, URLSafeTimedSerializer

__all__ = ["ATTEMPT_SECONDS", "Attempt", "AttemptSeal", "begin_attempt"]

ATTEMPT_SECONDS = 600
"""For password, second factor and consent at the provider."""

MAX_COOKIE_CHARACTERS = 3072
"""Ours have about 300 and the address to go on to."""

MAX_TARGET_CHARACTERS = 1500

_PURPOSE = b"holdfast console sign-in by openid connect"


@dataclass(frozen=True, slots=True)
class Attempt:
    """``state`` ties the answer to this browser, ``nonce`` the id token, ``verifier`` the code (RFC 7636). ``target`` is the
    page to go on to."""

    state: str
    nonce: str
    verifier: str
    target: str

    def is_answered_by(self, state: str) -> bool:
        """Whether an answer with this state is to this attempt. Compares in constant time."""
        return hmac.compare_digest(self.state.encode(), state.encode())


def begin_attempt(target: str) -> Attempt:
    """A new one; each value has 256 random bits. An address too long for a cookie is left out."""
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    return Attempt(state, nonce, verifier, target if len(target) <= MAX_TARGET_CHARACTERS else "")


class AttemptSeal:
    """Signs attempts with the secret that signs sessions, for another purpose: neither can stand in for the other."""

    def __init__(self, secret: str) -> None:
        self._serializer = URLSafeTimedSerializer(
            secret, salt=_PURPOSE, signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256}
        )

    def close(self, attempt: Attempt) -> str:
        """As a cookie's value."""
        return str(self._serializer.dumps([attempt.state, attempt.nonce, attempt.verifier, attempt.target]))

    def open(self, text: str | None) -> Attempt | None:
        """The attempt in a cookie; ``None`` for one that is missing, forged or older than :data:`ATTEMPT_SECONDS`."""
        if not text or len(text) > MAX_COOKIE_CHARACTERS:
            return None
        try:
            return Attempt(*self._serializer.loads(text, max_age=ATTEMPT_SECONDS))
        except (BadData, ValueError, TypeError):
            return None
