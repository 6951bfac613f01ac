"""Work that threads leave behind, done for all of them together by one at a time.

Who leaves an item does not wait for it. A thread that has nothing else to do works off what was left; otherwise a thread of
its own does. So an item that comes alone changes no threads, and many at once are done in one go.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Generic, TypeVar

from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = ["Collected"]

log = logging.get(__name__)

Item = TypeVar("Item")


class Collected(Generic[Item]):
    """Items from any number of threads.

    Args:
        name: of the thread, which begins when it is first needed.
        work: does what is to be done for one to ``most`` items, in the order in which they came. It must not raise.
    """

    def __init__(self, name: str, work: Callable[[Sequence[Item]], None], *, most: int) -> None:
        self._name = name
        self._work = work
        self._most = most
        self._lock = threading.Lock()
        self._left: deque[Item] = deque()
        self._is_led = False
        self._calls: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def leave(self, item: Item) -> None:
        """Leave an item. Follow with one of the two others."""
        with self._lock:
            self._left.append(item)

    def work_off(self) -> None:
        """Work off what was left, or a first part, in this thread. Where another one does so, it does the rest as well."""
        with self._lock:
            if self._is_led or not self._left:
                return
            self._is_led = True
            items = [self._left.popleft() for _ in range(min(self._most, len(self._left)))]
        try:
            self._work(items)
        except Exception:
            log.exception(Log.EXECUTION_BROKE)
        finally:
            with self._lock:
                self._is_led = False
            self.work_off_beside()

    def work_off_beside(self) -> None:
        """Have what was left worked off in a thread of its own."""
        with self._lock:
            if self._is_led or not self._left:
                return
            if self._thread is None:
                thread = threading.Thread(target=self._answer, name=self._name, daemon=True)
                thread.start()  # may fail where threads are short; the next call then tries again
                self._thread = thread
        self._calls.put(None)

    def _answer(self) -> None:
        while True:
            self._calls.get()
            self.work_off()
