"""Group commit: threads that commit at the same moment share one transaction, and each goes on after its commit.

There is no timer. A caller who finds nobody leading leads: it commits everything that waits, its own item first, and lets the
next one lead before it does anything else. A caller that is alone waits for nobody.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from holdfast.domain.errors import DatabaseUnavailable

__all__ = ["GroupCommit"]

Item = TypeVar("Item")
Committed = TypeVar("Committed")
Answer = TypeVar("Answer")


class GroupCommit(Generic[Item, Committed, Answer]):
    """Commits items for callers in any number of threads.

    Args:
        commit: writes items in one transaction and commits it; an answer for each, in their order. Tried again with a single
            item after a failure, so it has to be idempotent.
        finish: what is to be done after a commit, beside the next one; an answer for each, in their order.
        weigh: how large an item is.
        most: the largest sum of weights in one transaction, unless a single item is larger.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Item]], Sequence[Committed]],
        finish: Callable[[Sequence[Committed]], Sequence[Answer]],
        *,
        weigh: Callable[[Item], int],
        most: int,
    ) -> None:
        self._commit = commit
        self._finish = finish
        self._weigh = weigh
        self._most = most
        self._lock = threading.Lock()
        self._waiting: list[_Place[Item, Answer]] = []
        self._is_led = False

    def add(self, item: Item) -> Answer:
        """Commit the item, with others or alone.

        Raises:
            Exception: what ``commit`` or ``finish`` raises for this item. ``DatabaseUnavailable`` is everybody's.
        """
        place: _Place[Item, Answer] = _Place(item)
        with self._lock:
            self._waiting.append(place)
            is_leader, self._is_led = not self._is_led, True
        if not is_leader:
            place.wait()
        if place.is_leader or is_leader:
            self._lead()
        if place.is_alone:
            return self._finish(self._commit([item]))[0]
        return place.answer()

    def _lead(self) -> None:
        group = self._take()
        try:
            committed = self._try(group)
        finally:
            self._pass_on()
        if committed is not None:
            self._tell(group, committed)
        _wake(group[1:])

    def _take(self) -> "list[_Place[Item, Answer]]":
        """The leader, which is the first, and as many of the others as fit."""
        with self._lock:
            weight, count = self._weigh(self._waiting[0].item), 1
            for place in self._waiting[1:]:
                weight += self._weigh(place.item)
                if weight > self._most:
                    break
                count += 1
            group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    def _try(self, group: "list[_Place[Item, Answer]]") -> Sequence[Committed] | None:
        """What was committed; ``None`` where the places know better."""
        try:
            return self._commit([place.item for place in group])
        except DatabaseUnavailable as exc:
            for place in group:
                place.error = DatabaseUnavailable(str(exc))
        except BaseException as exc:  # noqa: BLE001 (one of them is at fault, and nobody knows which)
            for place in group:
                place.is_alone = len(group) > 1
                place.error = exc
        return None

    def _tell(self, group: "list[_Place[Item, Answer]]", committed: Sequence[Committed]) -> None:
        try:
            for place, answer in zip(group, self._finish(committed), strict=True):
                place.answers.append(answer)
        except BaseException as exc:  # noqa: BLE001 (everybody who waits has to be told something)
            for place in group:
                place.error = exc

    def _pass_on(self) -> None:
        with self._lock:
            following = self._waiting[0] if self._waiting else None
            self._is_led = following is not None
        if following is not None:
            following.is_leader = True
            following.wake()


class _Place(Generic[Item, Answer]):
    """One caller that waits. A lock is the cheapest thing that one thread can wait for and another one open."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.answers: list[Answer] = []
        self.error: BaseException | None = None
        self.is_leader = False
        self.is_alone = False
        self._gate = threading.Lock()
        self._gate.acquire()

    def wait(self) -> None:
        self._gate.acquire()

    def wake(self) -> None:
        self._gate.release()

    def answer(self) -> Answer:
        if self.error is not None:
            raise self.error
        return self.answers[0]


def _wake(places: "Sequence[_Place[Item, Answer]]") -> None:
    for place in places:
        place.wake()
