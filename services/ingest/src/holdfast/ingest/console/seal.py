"""What the session cookie holds, and the signature that keeps it from being made by anybody else.

The cookie is signed, not encrypted: it has a key's id, or who somebody is to the provider of OpenID Connect, and no secret or
token. Of a key it says that its holder was here; whether the key still counts is asked at every request. Nobody can be asked
that of a person, so their session is short.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from itsdangerous import BadData, URLSafeTimedSerializer

from holdfast.ingest.console.oidc.person import Person
from holdfast.ingest.console.roles import Role
from holdfast.storage.keys import KeyHolder

__all__ = [
    "ANONYMOUS",
    "PERSON_SECONDS",
    "SESSION_SECONDS",
    "Seal",
    "Session",
    "begin",
    "begin_for",
    "is_of",
    "seconds_of",
]

SESSION_SECONDS = 8 * 3600
"""A working day. Then the key is asked for again."""

PERSON_SECONDS = 3600
"""Of a session that a provider vouched for: somebody who loses a group there keeps the role here for at most as long. While
they are signed in at the provider, another session is a click."""

MAX_COOKIE_CHARACTERS = 3072
"""A key's have about 150, and a person's up to 2000; nothing longer is worth checking."""

_PURPOSE = b"holdfast console session"


@dataclass(frozen=True, slots=True)
class Session:
    """A browser's session. ``key_id`` is empty before the sign-in, when ``csrf`` guards the sign-in form alone.

    ``proof`` changes with the key's secret, so a session does not outlive a secret that was replaced under the same id. Of a
    ``person`` it changes with the settings that gave them their role.
    """

    csrf: str
    key_id: str = ""
    proof: str = ""
    person: Person | None = None

    @property
    def is_signed_in(self) -> bool:
        """Whether it was begun by a sign-in, which may count no more."""
        return bool(self.key_id) or self.person is not None


ANONYMOUS = Session("")
"""Of a browser without a cookie. Its token matches nothing."""


def begin(holder: KeyHolder | None = None) -> Session:
    """A new session with a new CSRF token: one from before the sign-in must not count after it."""
    csrf = secrets.token_urlsafe(24)
    return Session(csrf, holder.key_id, _proof(holder)) if holder else Session(csrf)


def begin_for(person: Person, mark: str) -> Session:
    """The session of a person; ``mark`` is that of the rules under which they have their role."""
    return Session(secrets.token_urlsafe(24), proof=mark, person=person)


def seconds_of(session: Session) -> int:
    """How long a session lasts."""
    return PERSON_SECONDS if session.person is not None else SESSION_SECONDS


def is_of(session: Session, holder: KeyHolder) -> bool:
    """Whether the session was begun with this holder's present secret. Compares in constant time."""
    return hmac.compare_digest(session.proof.encode(), _proof(holder).encode())


class Seal:
    """Signs sessions, and reads back those that it signed.

    Args:
        secret: shared by all processes that serve the console.
    """

    def __init__(self, secret: str) -> None:
        self._serializer = URLSafeTimedSerializer(
            secret, salt=_PURPOSE, signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256}
        )

    def close(self, session: Session) -> str:
        """The session as a cookie's value."""
        parts: list[object] = [session.csrf, session.key_id, session.proof]
        if (person := session.person) is not None:  # a cookie of a key stays one that the release before can read
            parts.append([person.issuer, person.subject, person.name, person.tenant, person.role])
        return str(self._serializer.dumps(parts))

    def open(self, text: str | None) -> Session:
        """The session in a cookie; :data:`ANONYMOUS` for one that is missing, forged or older than
        :func:`seconds_of` it."""
        if not text or len(text) > MAX_COOKIE_CHARACTERS:
            return ANONYMOUS
        try:
            (csrf, key_id, proof, *rest), at = self._serializer.loads(
                text, max_age=SESSION_SECONDS, return_timestamp=True
            )
            session = Session(csrf, key_id, proof, _person(*rest[0]) if rest else None)
        except (BadData, ValueError, TypeError):
            return ANONYMOUS
        return session if datetime.now(UTC) - at <= timedelta(seconds=seconds_of(session)) else ANONYMOUS


def _person(issuer: str, subject: str, name: str, tenant: str, role: str) -> Person:
    return Person(issuer, subject, name, tenant, Role(role))


def _proof(holder: KeyHolder) -> str:
    return hmac.new(holder.secret_hash, _PURPOSE, hashlib.sha256).hexdigest()[:32]
