"""Who is at the console, asked for at every request, with which role, and whether a form is one of ours."""

import hmac
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog
from flask import g, request

from holdfast.ingest.console.oidc.person import Person, Rules
from holdfast.ingest.console.roles import Role, includes, role_of
from holdfast.ingest.console.seal import ANONYMOUS, Seal, Session, is_of
from holdfast.ingest.http.acting import actor_named
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.problems import Problem
from holdfast.storage.audit import Actor, person_id
from holdfast.storage.keys import KeyHolder

__all__ = [
    "COOKIE",
    "Holder",
    "Role",
    "SignInNeeded",
    "Visit",
    "check_form",
    "enter",
    "require_role",
    "visit",
]

COOKIE = "holdfast_console"


class SignInNeeded(Exception):
    """Nobody is signed in, or their session has ended."""

    def __init__(self, *, has_ended: bool) -> None:
        super().__init__("sign in")
        self.has_ended = has_ended


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose session it is: a key's, or a person's whom a provider has named.

    Attributes:
        actor_id: in the audit log: the key's id, or :func:`~holdfast.storage.audit.person_id`.
        name: what people call the key, or the person.
        key_id: ``None`` of a person.
        issuer: the provider; ``None`` of a key.
    """

    actor_id: str
    tenant: str
    name: str | None
    key_id: str | None
    issuer: str | None


@dataclass(frozen=True, slots=True)
class Visit:
    """One request to the console. ``holder`` and ``role`` are ``None`` before the sign-in."""

    session: Session
    holder: Holder | None
    role: Role | None
    had_session: bool

    def may(self, role: Role) -> bool:
        """Whether this visitor has at least this role."""
        return self.role is not None and includes(self.role, role)

    @property
    def tenant(self) -> str:
        """Whose events are seen. Only after :func:`require_role`."""
        return self._signed_in().tenant

    @property
    def actor(self) -> Actor:
        """For the audit log. Only after :func:`require_role`."""
        holder = self._signed_in()
        return actor_named(holder.tenant, holder.actor_id, holder.name)

    @property
    def is_operator(self) -> bool:
        """Whether the texts of errors are shown, which may quote payloads."""
        return self.may(Role.OPERATOR)

    def _signed_in(self) -> Holder:
        if self.holder is None:
            raise SignInNeeded(has_ended=self.had_session)
        return self.holder


def enter(seal: Seal, rules: Rules | None) -> None:
    """Read the session of the request, so that :func:`visit` knows it. ``rules``: for people; ``None`` where none sign in.

    Raises:
        DatabaseUnavailable: the key is not cached and cannot be looked up.
    """
    session = seal.open(request.cookies.get(COOKIE))
    g.visit = Visit(session, None, None, had_session=session.is_signed_in)  # for the page of an error in the next line
    found = _person(session, rules) if session.person is not None else _key(session)
    if found is None:
        return
    holder, role = found
    g.visit = Visit(session, holder, role, had_session=True)
    structlog.contextvars.bind_contextvars(tenant=holder.tenant)


def _key(session: Session) -> tuple[Holder, Role] | None:
    key: KeyHolder | None = parts().authenticator.standing(session.key_id) if session.key_id else None
    role = role_of(key) if key is not None and is_of(session, key) else None
    if key is None or role is None:
        return None
    return Holder(key.key_id, key.tenant, key.name, key.key_id, None), role


def _person(session: Session, rules: Rules | None) -> tuple[Holder, Role] | None:
    person: Person | None = session.person
    if person is None or rules is None or not rules.are_those_of(session.proof):
        return None
    return Holder(person_id(person.subject), person.tenant, person.name, None, person.issuer), person.role


def visit() -> Visit:
    """The visit of the current request."""
    found: Visit = g.get("visit") or Visit(ANONYMOUS, None, None, had_session=False)
    return found


def require_role(role: Role) -> Visit:
    """The visit of somebody who has at least this role.

    Raises:
        SignInNeeded: nobody is signed in.
        Problem: 403.
    """
    current = visit()
    if current.holder is None:
        raise SignInNeeded(has_ended=current.had_session)
    if not current.may(role):
        remedy = "a key that has the scope for it" if current.holder.key_id else "more rights at the provider, or a key"
        detail = f"this needs the role {role} and you have {current.role}; sign in with {remedy}"
        raise Problem(403, "forbidden", detail)
    return current


def check_form() -> None:
    """Make sure that a request which changes something comes from a form of this console, in this session.

    Two locks: the session's token, which no other page can read, and the Origin that browsers send with every POST.

    Raises:
        Problem: 403.
    """
    if not _is_own_origin(request.headers.get("Origin")):
        detail = "this form was not sent from this console; open the page here and send it again"
        raise Problem(403, "foreign_origin", detail)
    sent = request.headers.get("X-CSRF-Token") or request.form.get("csrf", "")
    expected = visit().session.csrf
    if not expected or not hmac.compare_digest(sent.encode(), expected.encode()):
        detail = "this form is from another session, or cookies are off; go back, load the page again and repeat it"
        raise Problem(403, "invalid_csrf", detail)


def _is_own_origin(origin: str | None) -> bool:
    """By host and port alone: behind a proxy that ends TLS the scheme is not known here."""
    named = urlsplit(origin or "").netloc.lower()
    hosts = {request.headers.get("Host", ""), request.headers.get("X-Forwarded-Host", "")}
    return bool(named) and named in {host.strip().lower() for host in hosts}
