"""Whose turn it is: tenants one after the other by their weights, and of each its events by priority and age. Pure.

Start-time fair queuing (Goyal, Vin, Cheng: "Start-time Fair Queuing", SIGCOMM 1996): every tenant has a tag, which a turn
moves on by one part of its weight; the lowest tag is next. One that had nothing to do begins where the others are.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TypeVar

__all__ = ["AGEING_SECONDS", "DEFAULT_PRIORITY", "HIGHEST_PRIORITY", "Turns", "aged"]

DEFAULT_PRIORITY = 5
HIGHEST_PRIORITY = 9

AGEING_SECONDS = 600.0
"""What a step of priority is worth: an event of one lower runs first once it has waited for ten minutes more."""

REMEMBERED = 10_000
"""Tenants whose tags are kept."""

Item = TypeVar("Item")


def aged(due_at: datetime, priority: int) -> datetime:
    """What events of one tenant are sorted by, the earliest first."""
    return due_at - timedelta(seconds=(priority - DEFAULT_PRIORITY) * AGEING_SECONDS)


class Turns:
    """Remembers who has had how many turns. For one thread at a time."""

    def __init__(self) -> None:
        self._tags: dict[str, float] = {}
        self._now = 0.0

    def choose(
        self,
        items: Iterable[Item],
        count: int,
        *,
        tenant: Callable[[Item], str],
        weights: Mapping[str, int],
        may_run: Callable[[Item], bool] = lambda _: True,
    ) -> list[Item]:
        """The next ``count`` of items, which are sorted within each tenant; a tenant without a weight has 1.

        One that ``may_run`` refuses is passed over, and its tenant's turn is not spent.
        """
        left: dict[str, list[Item]] = {}
        for item in items:
            left.setdefault(tenant(item), []).append(item)
        for queue in left.values():
            queue.reverse()
        tags = {name: max(self._now, self._tags.get(name, 0.0)) for name in left}
        chosen: list[Item] = []
        while left and len(chosen) < count:
            name = min(left, key=lambda each: (tags[each], each))
            item = left[name].pop()
            if may_run(item):
                chosen.append(item)
                self._now = tags[name]
                tags[name] += 1 / weights.get(name, 1)
            if not left[name]:
                del left[name]
        self._remember(tags)
        return chosen

    def _remember(self, tags: Mapping[str, float]) -> None:
        self._tags |= tags
        if len(self._tags) > REMEMBERED:
            # Whose tag has passed begins at the present one anyway.
            self._tags = {name: tag for name, tag in self._tags.items() if tag > self._now}
