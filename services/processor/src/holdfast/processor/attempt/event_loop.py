"""The event loop of a process, on which ``async def`` handlers run: one thread for all of them."""

import asyncio
import contextlib
import contextvars
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

from holdfast.processor.attempt.heartbeat import Running
from holdfast.processor.attempt.turn import fields_of
from holdfast.runtime import logging
from holdfast.runtime.background import Repeater
from holdfast.runtime.telemetry import Log, Metrics

__all__ = ["EventLoop"]

log = logging.get(__name__)

LOOK_SECONDS = 0.25
"""Between two questions to the loop whether it still answers."""

BLOCKED_SECONDS = 1.0
"""A step of a coroutine takes microseconds; a process short of processors may answer some tenths of a second late."""

STOP_SECONDS = 1.0
"""For the loop to end, when its process does. One that is blocked ends with the process."""

_OWNER: contextvars.ContextVar[Running | None] = contextvars.ContextVar("holdfast_owner", default=None)
"""Whose a task is: a handler's own, and those that it begins, which inherit the context."""


class EventLoop:
    """Runs coroutines from any number of threads in one, and tells of a handler that keeps that one from all others."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_task_factory(self._make_task)
        self._loop.set_exception_handler(_tell)
        self._owners: WeakKeyDictionary[asyncio.Task[Any], Running] = WeakKeyDictionary()
        self._tasks: set[asyncio.Task[Any]] = set()
        """A loop knows its tasks weakly: nobody else may keep one that waits."""
        self._asked_at = 0.0
        self._is_asked = False
        self._is_told = False
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="event-loop", daemon=True)
        self._watch = Repeater(
            "loop-watch",
            self.look,
            interval_seconds=LOOK_SECONDS,
            is_needed=lambda: bool(self._tasks or self._is_asked),
        )

    def start(self) -> None:
        """Begin to run what is submitted."""
        self._thread.start()
        self._watch.start()

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs, blocked or not."""
        return self._thread.is_alive()

    def submit(
        self, running: Running, make: Callable[[], Coroutine[Any, Any, Any]], done: Callable[["asyncio.Task[Any]"], object]
    ) -> None:  # fmt: skip
        """Run a coroutine of a handler; ``done`` is called on the loop with its task. ``running.stop`` cancels it.

        Its context is empty: nothing of this thread's is in it.
        """
        # Of a blocked loop the watch learns from what it has begun before.
        self._loop.call_soon_threadsafe(self._begin, running, make, done, context=contextvars.Context())

    def look(self) -> None:
        """Ask the loop for an answer; if it has owed one for long, say what it is busy with."""
        if not self._is_asked:
            self._asked_at, self._is_asked, self._is_told = time.monotonic(), True, False
            self._call(self._answer)
        elif time.monotonic() - self._asked_at >= BLOCKED_SECONDS and not self._is_told:
            self._is_told = True
            self._tell_blocked()

    def stop(self) -> None:
        """End the loop, if it answers."""
        self._is_stopping = True
        self._watch.stop(timeout_seconds=STOP_SECONDS)
        self._call(self._loop.stop)
        self._thread.join(STOP_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._is_stopping:
            try:
                self._loop.run_forever()
            except BaseException as exc:
                log.warning(Log.LOOP_TASK_FAILED, exc_info=exc)

    def _begin(
        self, running: Running, make: Callable[[], Coroutine[Any, Any, Any]], done: Callable[["asyncio.Task[Any]"], object]
    ) -> None:  # fmt: skip
        _OWNER.set(running)
        task = self._loop.create_task(make())
        self._tasks.add(task)
        self._watch.wake()

        def ended(task: "asyncio.Task[Any]") -> None:
            self._tasks.discard(task)
            done(task)

        task.add_done_callback(ended)
        running.stop = lambda: self._call(task.cancel)

    def _answer(self) -> None:
        self._is_asked = False

    def _call(self, function: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(function)

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> "asyncio.Task[Any]":  # fmt: skip
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
        context = options.get("context")
        owner = _OWNER.get() if context is None else context.get(_OWNER)
        if owner is not None:
            self._owners[task] = owner
        return task

    def _tell_blocked(self) -> None:
        task = asyncio.current_task(self._loop)
        owner = self._owners.get(task) if task is not None else None
        fields = fields_of(owner.lease, owner.handler) if owner is not None else {}
        place = _place(sys._current_frames().get(self._thread.ident or 0))  # noqa: SLF001 (documented)
        Metrics.loop_blocked.labels(owner.handler.name if owner is not None else "").inc()
        log.warning(Log.LOOP_BLOCKED, place=place, **fields)


def _place(frame: FrameType | None) -> str | None:
    """``file:line in function`` of the innermost frame: names of code, which quote no payload."""
    return None if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


def _tell(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """In place of asyncio's own lines, which quote exceptions."""
    log.warning(Log.LOOP_TASK_FAILED, exc_info=context.get("exception"))
