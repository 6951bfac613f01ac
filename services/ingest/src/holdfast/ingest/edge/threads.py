"""The threads that requests are served in. Health has threads of its own, so that it is answered when all others hang."""

import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from holdfast.runtime.telemetry import Metrics

__all__ = ["BUSY_SECONDS", "NoFreeThread", "Threads"]

BUSY_SECONDS = 2.0
"""Requests that wait longer for a thread say that this process is not ready."""

Job = Callable[[], None]


class NoFreeThread(Exception):
    """Every thread has been busy for seconds while requests wait."""


class Threads:
    """Pools: one for work, one for each health address. What is begun must not raise."""

    def __init__(self, count: int) -> None:
        self._in_flight = Metrics.in_flight
        self._is_closing = False
        self._waiting: deque[float] = deque()
        self._work = _pool("request", count, self._serve)
        self._beside = {path: _pool(path.strip(b"/").decode(), 1, _call) for path in (b"/livez", b"/readyz")}
        self._count = count

    def begin(self, path: bytes, job: Job) -> None:
        """Run the job in the pool that serves ``path``, when its turn comes."""
        beside = self._beside.get(path)
        if beside is not None:
            beside.put(job)
            return
        self._in_flight.inc()
        self._waiting.append(time.monotonic())
        self._work.put(job)

    def check(self) -> None:
        """For readiness.

        Raises:
            NoFreeThread: requests have waited too long.
        """
        if self.waited_seconds() > BUSY_SECONDS:
            raise NoFreeThread

    def waited_seconds(self) -> float:
        """For how long the oldest request has waited for a thread; 0 while none waits."""
        try:
            return time.monotonic() - self._waiting[0]
        except IndexError:
            return 0.0

    def close(self) -> None:
        """Begin nothing more; what runs ends by itself."""
        self._is_closing = True
        for _ in range(self._count):
            self._work.put(None)
        for pool in self._beside.values():
            pool.put(None)

    def _serve(self, job: Job) -> None:
        self._waiting.popleft()  # jobs begin in the order in which they came
        if not self._is_closing:
            job()
        self._in_flight.dec()


def _pool(name: str, count: int, act: Callable[[Job], None]) -> "SimpleQueue[Job | None]":
    """The queue of new threads. They have to end for the process to end."""
    jobs: SimpleQueue[Job | None] = SimpleQueue()

    def work() -> None:
        while (job := jobs.get()) is not None:
            act(job)
            del job  # a thread that waits must not keep a request in memory

    for number in range(count):
        threading.Thread(target=work, name=f"{name}_{number}").start()
    return jobs


def _call(job: Job) -> None:
    job()
