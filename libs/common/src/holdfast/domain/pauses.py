"""What is paused, and which events that stops. Pure."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from holdfast.domain.attributes import MAX_ATTRIBUTE_BYTES
from holdfast.domain.names import is_tenant, is_text
from holdfast.domain.routes import is_pool

__all__ = ["LINE", "MAX_NOTE_LENGTH", "NAME_RULES", "PauseKind", "Paused", "Pauses", "SHARED", "is_pausable"]

LINE = "pause:"
"""Before a pause's id: the line of the events that it stops."""


class PauseKind(StrEnum):
    """What a pause names."""

    HANDLER = "handler"
    """A handler, by its name; of every tenant."""
    TYPE = "type"
    """An event type of one tenant."""
    TENANT = "tenant"
    """All events of a tenant."""
    POOL = "pool"
    """All handlers of a pool."""


SHARED = frozenset({PauseKind.HANDLER, PauseKind.POOL})
"""Kinds that hold for every tenant."""

MAX_NOTE_LENGTH = 200
"""Characters."""

NAME_RULES = {
    PauseKind.HANDLER: "a handler's name: 1 to 100 letters, digits, dots, dashes and underscores",
    PauseKind.TYPE: f"an event type: 1 to {MAX_ATTRIBUTE_BYTES} bytes in UTF-8 without control characters",
    PauseKind.TENANT: "your own tenant",
    PauseKind.POOL: "a pool's name: 1 to 40 lower-case letters, digits, dashes and underscores; or default",
}
"""What a pause of each kind names."""

_HANDLER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


def is_pausable(kind: PauseKind, name: str) -> bool:
    """Whether something of this kind can have the name; see :data:`NAME_RULES`."""
    if kind is PauseKind.HANDLER:
        return _HANDLER.fullmatch(name) is not None
    if kind is PauseKind.POOL:
        return is_pool(name)
    if kind is PauseKind.TENANT:
        return is_tenant(name)
    return is_text(name) and 0 < len(name.encode()) <= MAX_ATTRIBUTE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """One pause. ``tenant``: whose events, of the kinds type and tenant."""

    id: UUID
    kind: PauseKind
    name: str
    tenant: str | None
    paused_by: str
    note: str | None
    paused_at: datetime

    @property
    def line(self) -> str:
        """The line in which the events wait that it stops."""
        return f"{LINE}{self.id}"


class Pauses:
    """The pauses in force, as of a version."""

    def __init__(self, version: int, pauses: Iterable[Paused]) -> None:
        self.version = version
        self._by_what = {(each.kind, each.name, each.tenant): each for each in pauses}

    def __bool__(self) -> bool:
        return bool(self._by_what)

    def __iter__(self) -> Iterator[Paused]:
        return iter(self._by_what.values())

    def stopping(self, *, tenant: str, type_: str, handler: str | None, pool: str) -> Paused | None:
        """The pause that stops such an event, if one does."""
        if not self._by_what:
            return None
        names: tuple[tuple[PauseKind, str | None, str | None], ...] = (
            (PauseKind.TENANT, tenant, tenant), (PauseKind.TYPE, type_, tenant), (PauseKind.HANDLER, handler, None),
            (PauseKind.POOL, pool or "default", None),
        )  # fmt: skip
        return next((found for each in names if (found := self._by_what.get(each))), None)  # type: ignore[arg-type]
