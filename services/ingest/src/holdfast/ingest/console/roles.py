"""What somebody may do at the console."""

from enum import StrEnum

from holdfast.storage.keys import KeyHolder

__all__ = ["Role", "highest", "includes", "role_of"]


class Role(StrEnum):
    """What somebody may do here. It follows from the scopes of a key, or from a claim of an OpenID Connect provider."""

    VIEWER = "viewer"
    """``events:read``: sees events and their data."""

    OPERATOR = "operator"
    """``events:read`` and ``operate``: also sees the texts of errors, replays and discards."""

    ADMIN = "admin"
    """``admin``: everything."""


_RANKS = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}


def includes(role: Role, wanted: Role) -> bool:
    """Whether who has ``role`` may do what ``wanted`` may."""
    return _RANKS[role] >= _RANKS[wanted]


def highest(roles: list[Role]) -> Role | None:
    """The role that may do most; ``None`` of none."""
    return max(roles, key=_RANKS.__getitem__, default=None)


def role_of(holder: KeyHolder) -> Role | None:
    """The role of a key; ``None`` for one that may not read events, which is nobody here."""
    if "admin" in holder.scopes:
        return Role.ADMIN
    if "events:read" not in holder.scopes:
        return None
    return Role.OPERATOR if "operate" in holder.scopes else Role.VIEWER
