"""Revoked live tokens: what is revoked, and how long that has to be remembered."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["KEPT_SECONDS", "LONGEST_TOKEN_SECONDS", "Revocation", "RevocationKind"]

LONGEST_TOKEN_SECONDS = 86_400
"""A live token counts for at most a day after its ``iat``, whatever its ``exp``: a revocation can be forgotten after that."""

KEPT_SECONDS = 2 * LONGEST_TOKEN_SECONDS
"""How long a revocation is kept. Twice the longest life, for issuers whose clocks are ahead."""


class RevocationKind(StrEnum):
    """What a revocation names."""

    TOKEN = "token"  # noqa: S105 (a kind, no secret)
    """One token, by its ``jti``."""
    SUBJECT = "subject"
    """Every token of a subject (``sub``) that was issued up to the second of the revocation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """One revocation as it was recorded. ``seq`` grows with every revocation; ``second`` counts since 1970."""

    seq: int
    tenant: str
    kind: RevocationKind
    name: str
    second: int
