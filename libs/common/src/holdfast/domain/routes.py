"""Where recorded events go: the priority and the pool that handlers have declared, and the weights of tenants. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from holdfast.domain.event_types import fits
from holdfast.domain.turns import DEFAULT_PRIORITY

__all__ = ["PLAIN", "Route", "Routing", "is_pool"]

_POOL = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}", re.ASCII)


def is_pool(name: str) -> bool:
    """Whether a pool can have the name: 1 to 40 lower-case letters, digits, dashes and underscores."""
    return _POOL.fullmatch(name) is not None


class Route(NamedTuple):
    """How an event is queued. ``pool`` is empty for handlers that name none."""

    priority: int = DEFAULT_PRIORITY
    pool: str = ""


PLAIN = Route()


@dataclass(frozen=True, slots=True)
class Routing:
    """``exact`` and ``patterns``: routes by type and by pattern, other than plain ones."""

    exact: Mapping[str, Route] = field(default_factory=dict)
    patterns: Mapping[str, Route] = field(default_factory=dict)
    weights: Mapping[str, int] = field(default_factory=dict)

    def route(self, event_type: str) -> Route:
        """That of the handler of a type; as ``Handlers.find`` has it, the longest pattern wins."""
        if not self.exact and not self.patterns:
            return PLAIN
        if found := self.exact.get(event_type):
            return found
        fitting = [pattern for pattern in self.patterns if fits(pattern, event_type)]
        return self.patterns[max(fitting, key=lambda each: (len(each), each))] if fitting else PLAIN

    def weight(self, tenant: str) -> int:
        """A tenant's share of the turns."""
        return self.weights.get(tenant, 1)
