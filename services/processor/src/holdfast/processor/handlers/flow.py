"""Which events of a handler go first, where it runs, and how many of them at once: what is declared."""

from dataclasses import dataclass
from typing import Any

from holdfast.domain.declared import DeclaredHandler
from holdfast.domain.errors import ConfigurationError
from holdfast.domain.limits import Concurrency, Rate
from holdfast.domain.routes import Route, is_pool
from holdfast.domain.turns import DEFAULT_PRIORITY, HIGHEST_PRIORITY

__all__ = ["DEFAULT_POOL", "PLAIN_FLOW", "Flow", "flow_of", "pool_of"]

DEFAULT_POOL = "default"
"""What the pool of handlers that name none is called, in settings and on screens."""


@dataclass(frozen=True, slots=True)
class Flow:
    """See ``Handlers.on``. ``pool`` is empty for handlers that name none."""

    priority: int = DEFAULT_PRIORITY
    pool: str = ""
    limit: Concurrency | None = None
    rate: Rate | None = None

    @property
    def route(self) -> Route:
        """What recording has to know of it."""
        return Route(self.priority, self.pool)

    def declared(self, name: str) -> DeclaredHandler:
        """What others are told of the handler of this name."""
        return DeclaredHandler(name, self.priority, self.pool, self.limit, self.rate)


PLAIN_FLOW = Flow()


def flow_of(place: str, *, priority: Any, pool: Any, limit: Any, rate: Any) -> Flow:
    """From a handler's options.

    Raises:
        ConfigurationError: one of them is wrong.
    """
    if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= HIGHEST_PRIORITY:
        raise ConfigurationError(f"{place}: priority takes a whole number from 0 to 9, of which 9 goes first")
    if limit is not None and not isinstance(limit, Concurrency):
        raise ConfigurationError(f'{place}: limit takes a Concurrency, such as Concurrency(5, key="subject")')
    if rate is not None and not isinstance(rate, Rate):
        raise ConfigurationError(f"{place}: rate takes a Rate, such as Rate(100, per=60)")
    try:
        return Flow(priority, "" if pool is None else pool_of(pool), limit, rate)
    except ConfigurationError as exc:
        raise ConfigurationError(f"{place}: {exc}") from exc


def pool_of(name: Any) -> str:
    """A pool by the name that somebody gave it; empty for ``default``.

    Raises:
        ConfigurationError: no pool is named so.
    """
    if not isinstance(name, str) or not is_pool(name):
        raise ConfigurationError(
            f"a pool's name is 1 to 40 lower-case letters, digits, dashes and underscores, such as gpu, not {name!r}"
        )
    return "" if name == DEFAULT_POOL else name
