"""Who an id token is about, and what they may do here. Pure."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.domain.names import is_tenant, is_text
from holdfast.ingest.console.oidc.failures import NoRole, SignInFailed
from holdfast.ingest.console.roles import Role, highest

__all__ = ["Person", "Rules", "person_of"]

MAX_SUBJECT_BYTES = 255
"""OpenID Connect Core 1.0, section 2."""

MAX_NAME_CHARACTERS = 100
MAX_SHOWN = 10
MAX_SHOWN_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody whom a provider has named. ``name`` is for people to read; ``subject`` says who it is."""

    issuer: str
    subject: str
    name: str
    tenant: str
    role: Role


@dataclass(frozen=True, slots=True)
class Rules:
    """What the settings make of claims. One of ``tenant`` and ``tenant_claim`` is given."""

    issuer: str
    client_id: str
    tenant: str | None
    tenant_claim: str | None
    roles_claim: str
    roles: Mapping[str, str]

    def mark(self) -> str:
        """Differs when the rules do: a session that was begun under others does not count."""
        told = [
            self.issuer,
            self.client_id,
            self.tenant,
            self.tenant_claim,
            self.roles_claim,
            sorted(self.roles.items()),
        ]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]

    def are_those_of(self, mark: str) -> bool:
        """Whether a session with this mark was begun under these rules."""
        return hmac.compare_digest(mark.encode(), self.mark().encode())


def person_of(claims: Mapping[str, Any], rules: Rules) -> Person:
    """Who it is.

    Raises:
        NoRole: the settings give them no role or no tenant.
        SignInFailed: the token has no usable subject.
    """
    subject = claims.get("sub")
    if not isinstance(subject, str) or not is_text(subject) or not 0 < len(subject.encode()) <= MAX_SUBJECT_BYTES:
        raise SignInFailed("id_token_sub", "The provider's id token does not count: it names nobody.", status=502)
    role = _role(claims, rules)
    return Person(rules.issuer, subject, _name(claims, subject), _tenant(claims, rules), role)


def _role(claims: Mapping[str, Any], rules: Rules) -> Role:
    values = _values(claims, rules.roles_claim)
    role = highest([Role(rules.roles[value]) for value in values if value in rules.roles])
    if role is None:
        text = (
            "Your sign-in worked, and none of your groups has a role here. Map one of these values to viewer, operator or "
            "admin in HOLDFAST_OIDC_ROLES, or let the provider add the claim to the id token."
        )
        raise _nothing("no_role", text, rules.roles_claim, values)
    return role


def _tenant(claims: Mapping[str, Any], rules: Rules) -> str:
    if rules.tenant is not None:
        return rules.tenant
    claim = rules.tenant_claim or ""
    values = _values(claims, claim)
    if len(values) != 1 or not is_tenant(values[0]):
        text = (
            "Your sign-in worked, and it does not say which tenant you belong to. The claim has to be in the id token, with "
            "one tenant of up to 63 letters, digits, dots, dashes and underscores; HOLDFAST_OIDC_TENANT_CLAIM names it."
        )
        raise _nothing("no_tenant", text, claim, values)
    return values[0]


def _values(claims: Mapping[str, Any], name: str) -> list[str]:
    """The texts of a claim, or of one within others: ``realm_access.roles``."""
    found: Any = claims.get(name)
    if found is None:
        found = claims
        for step in name.split("."):
            found = found.get(step) if isinstance(found, Mapping) else None
    listed = found if isinstance(found, list) else [found]
    return [each for each in listed if isinstance(each, str)]


def _name(claims: Mapping[str, Any], subject: str) -> str:
    """An e-mail address that the provider has not verified is what anybody may have typed, so it is none."""
    email = claims.get("email") if claims.get("email_verified") is not False else None
    for each in (email, claims.get("preferred_username"), claims.get("name")):
        if isinstance(each, str) and each.strip() and is_text(each):
            return each.strip()[:MAX_NAME_CHARACTERS]
    return subject[:MAX_NAME_CHARACTERS]


def _nothing(code: str, text: str, claim: str, values: list[str]) -> NoRole:
    shown = [each[:MAX_SHOWN_CHARACTERS] for each in values[:MAX_SHOWN]]
    return NoRole(code, text, claim=claim, values=shown, count=len(values))
