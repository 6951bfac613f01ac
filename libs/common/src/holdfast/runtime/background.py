"""Threads that work beside a service's own: a duty at intervals, and a queue emptied in batches."""

import queue
import random
import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = ["Batcher", "Repeater"]

log = logging.get(__name__)

Item = TypeVar("Item")


class Repeater:
    """Runs a duty at intervals in a thread of its own, until stopped. A duty that raises is logged and runs again.

    Intervals are jittered by ±20 %, so that replicas do not sweep in step.

    Args:
        is_needed: whether there is anything to do. While there is not, the thread sleeps until :meth:`wake`, and the duty
            runs an interval after that; without it, it runs always.
    """

    def __init__(
        self,
        name: str,
        duty: Callable[[], object],
        *,
        interval_seconds: float,
        is_needed: Callable[[], bool] | None = None,
    ) -> None:
        self._duty = duty
        self._interval_seconds = interval_seconds
        self._is_needed = is_needed
        self._is_stopping = threading.Event()
        self._is_woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Run the duty for the first time at once, or when it is needed."""
        self._thread.start()

    def wake(self) -> None:
        """The duty is needed. Cheap, also when it was known."""
        if not self._is_woken.is_set():
            self._is_woken.set()

    def stop(self, *, timeout_seconds: float = 5.0) -> None:
        """Let the duty under way finish, and no other begin."""
        self._is_stopping.set()
        self._is_woken.set()
        self._thread.join(timeout_seconds)

    @property
    def is_alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._is_stopping.is_set():
            if self._is_needed is not None:
                self._await_need(self._is_needed)
                self._pause()
            try:
                self._duty()
            except Exception:
                log.exception(Log.BACKGROUND_FAILED, duty=self._thread.name)
            if self._is_needed is None:
                self._pause()

    def _await_need(self, is_needed: Callable[[], bool]) -> None:
        while not self._is_stopping.is_set():
            self._is_woken.clear()  # before the look: what is needed after it wakes us
            if is_needed() or self._is_stopping.is_set():
                return
            self._is_woken.wait()

    def _pause(self) -> None:
        self._is_stopping.wait(self._interval_seconds * random.uniform(0.8, 1.2))  # noqa: S311 (jitter)


class Batcher(Generic[Item]):
    """Collects items and hands them to ``flush`` in lists, off the caller's path.

    For work that may be lost and is then done by somebody else: when the backlog is full the oldest items are kept and
    new ones dropped, and a list whose flush raises is dropped.
    """

    def __init__(
        self,
        name: str,
        flush: Callable[[list[Item]], None],
        *,
        interval_seconds: float = 0.2,
        batch_limit: int = 500,
        backlog_limit: int = 50_000,
    ) -> None:
        self._name = name
        self._flush = flush
        self._batch_limit = batch_limit
        self._items: queue.Queue[Item] = queue.Queue(backlog_limit)
        self._repeater = Repeater(
            name, self._drain, interval_seconds=interval_seconds, is_needed=lambda: not self._items.empty()
        )

    def start(self) -> None:
        """Begin to flush."""
        self._repeater.start()

    def add(self, item: Item) -> None:
        """Take an item, without waiting."""
        self.add_all([item])

    def add_all(self, items: Iterable[Item]) -> None:
        """Take items, without waiting."""
        try:
            for item in items:
                self._items.put_nowait(item)
        except queue.Full:
            return
        finally:
            self._repeater.wake()

    def stop(self) -> None:
        """Flush what is there and end the thread. A flush that raises is logged: the caller that stops has more to close."""
        self._repeater.stop()
        try:
            self._drain()
        except Exception:
            log.exception(Log.BACKGROUND_FAILED, duty=self._name)

    def _drain(self) -> None:
        while batch := self._take():
            self._flush(batch)

    def _take(self) -> list[Item]:
        batch: list[Item] = []
        while len(batch) < self._batch_limit:
            try:
                batch.append(self._items.get_nowait())
            except queue.Empty:
                break
        return batch
