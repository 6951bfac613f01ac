"""What is paused, and which events that stops. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

__all__ = ["LINE", "PauseKind", "Paused", "Pauses"]

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
