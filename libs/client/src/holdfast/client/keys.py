"""API keys, as the API shows them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from holdfast.client.answers import optional_time, time_of

__all__ = ["ApiKey", "NewApiKey"]


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key, without its secret."""

    key_id: str
    prefix: str
    """What the key begins with, to know it again by."""
    name: str
    scopes: Sequence[str]
    state: str
    """``active``, ``expired`` or ``revoked``."""
    created_at: datetime
    """With a time zone, as the other times."""
    expires_at: datetime | None
    """``None``: never."""
    last_used_at: datetime | None
    """Up to a minute behind; ``None``: not yet."""
    revoked_at: datetime | None
    replaced_by: str | None
    """Id of the key that a rotation made for this one."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The key as the API sent it, with any fields that this client does not know."""

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(
            key_id=body["key_id"],
            prefix=body["prefix"],
            name=body["name"],
            scopes=tuple(body["scopes"]),
            state=body["state"],
            created_at=time_of(body["created_at"]),
            expires_at=optional_time(body["expires_at"]),
            last_used_at=optional_time(body["last_used_at"]),
            revoked_at=optional_time(body["revoked_at"]),
            replaced_by=body["replaced_by"],
            raw={name: value for name, value in body.items() if name != "key"},
        )


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """An API key that was made just now. ``key`` is the whole of it, which is shown this once."""

    key: str = field(repr=False)
    entry: ApiKey

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(str(body["key"]), ApiKey.read(body))
