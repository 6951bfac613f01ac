"""What a handler declares of how it runs, as processors tell it and operators see it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from holdfast.domain.limits import Concurrency, Rate
from holdfast.domain.turns import DEFAULT_PRIORITY

__all__ = ["DeclaredHandler"]


@dataclass(frozen=True, slots=True)
class DeclaredHandler:
    """See ``Handlers.on``. ``pool`` is empty for a handler that names none."""

    name: str
    priority: int = DEFAULT_PRIORITY
    pool: str = ""
    limit: Concurrency | None = None
    rate: Rate | None = None

    def told(self) -> dict[str, Any]:
        """As JSON: what is as usual is left out, so that most have their name alone."""
        said: dict[str, Any] = {"name": self.name}
        if self.priority != DEFAULT_PRIORITY:
            said["priority"] = self.priority
        if self.pool:
            said["pool"] = self.pool
        if self.limit is not None:
            said["limit"] = {"count": self.limit.count, "key": self.limit.key}
        if self.rate is not None:
            said["rate"] = {"count": self.rate.count, "per": self.rate.per, "key": self.rate.key}
        return said

    @classmethod
    def heard(cls, said: Mapping[str, Any]) -> Self:
        """From what :meth:`told` returned."""
        limit, rate = said.get("limit"), said.get("rate")
        return cls(
            said["name"], said.get("priority", DEFAULT_PRIORITY), said.get("pool", ""),
            None if limit is None else Concurrency(limit["count"], limit["key"]),
            None if rate is None else Rate(rate["count"], rate["per"], rate["key"]),
        )  # fmt: skip
