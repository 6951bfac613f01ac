"""The threads that requests are served in. Health has threads of its own, so that it is answered when all others hang."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from holdfast.runtime.telemetry import Metrics

__all__ = ["NoFreeThread", "Threads"]

BUSY_SECONDS = 2.0
"""Requests that wait longer for a thread say that this process is not ready."""

Answer = TypeVar("Answer")


class NoFreeThread(Exception):
    """Every thread has been busy for seconds while requests wait."""


class Threads:
    """Pools: one for work, one for each health address."""

    def __init__(self, count: int) -> None:
        self._work = ThreadPoolExecutor(count, "request")
        self._beside = {path: ThreadPoolExecutor(1, path.strip("/")) for path in ("/livez", "/readyz")}
        self._waiting: dict[object, float] = {}

    async def call(self, path: str, function: Callable[[], Answer]) -> Answer:
        """Run ``function`` in the pool that serves ``path``."""
        loop, mark = asyncio.get_running_loop(), object()
        beside = self._beside.get(path)
        if beside is not None:
            return await loop.run_in_executor(beside, function)
        self._waiting[mark] = time.monotonic()

        def begin() -> Answer:
            self._waiting.pop(mark, None)
            return function()

        with Metrics.in_flight.track_inprogress():
            return await loop.run_in_executor(self._work, begin)

    def check(self) -> None:
        """For readiness.

        Raises:
            NoFreeThread: requests have waited too long.
        """
        oldest = min(list(self._waiting.values()), default=None)
        if oldest is not None and time.monotonic() - oldest > BUSY_SECONDS:
            raise NoFreeThread

    def close(self) -> None:
        """Begin nothing more; what runs ends by itself."""
        for pool in (self._work, *self._beside.values()):
            pool.shutdown(wait=False, cancel_futures=True)
