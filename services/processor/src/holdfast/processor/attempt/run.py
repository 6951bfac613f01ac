"""Running one handler once: payload in, result out, and what it raises told apart from what happens to us.

Everything that is a stranger's code runs here, where it can be interrupted and its time is watched: the payload's
validators, the handler, the flush, making JSON of its result, and the text of its errors.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from holdfast.domain.errors import DatabaseUnavailable
from holdfast.domain.event import Lease
from holdfast.domain.transitions import Completion
from holdfast.messaging.announce import Announcer
from holdfast.processor.attempt.calling import called, called_for_all
from holdfast.processor.attempt.effects import Effects
from holdfast.processor.attempt.failures import HandlerFailed, failed
from holdfast.processor.attempt.heartbeat import Heartbeat, Running
from holdfast.processor.attempt.interruption import Interrupted, Interruptions
from holdfast.processor.attempt.progress import LiveProgress
from holdfast.processor.attempt.turn import Turn
from holdfast.processor.handlers.context import Context
from holdfast.processor.handlers.registry import Handler
from holdfast.runtime.logging import Logger

__all__ = ["Runner"]

__tracebackhide__ = True


class Runner:
    """Runs handlers in the calling thread, where they can be interrupted and their time is watched."""

    def __init__(self, announcer: Announcer, interruptions: Interruptions, heartbeat: Heartbeat) -> None:
        self._announcer = announcer
        self._interruptions = interruptions
        self._heartbeat = heartbeat

    def run(self, handler: Handler, lease: Lease, log: Logger, effects: Effects) -> Completion:
        """One attempt.

        Raises:
            LeaseLost, AlreadyProcessed: the handler asked for a session, and the event is somebody else's.
            HandlerFailed: the data did not fit, the handler raised or took too long, or its result cannot be stored.
            Interrupted: the process has no time left.
            DatabaseUnavailable: the transaction's connection went away under it.
        """
        started = time.monotonic()
        with self._heartbeat.watched(lease, handler) as running:
            effects.on_open = running.hold
            if effects.backend is not None:
                running.hold(effects.backend)
            context = self._context(handler, lease, log, running, effects)
            result = self._call(running, effects, lambda: called(running, context, effects))
            effects.check()
        return Completion(handler.name, result, int((time.monotonic() - started) * 1000), *context.close())

    def run_for_all(self, handler: Handler, turns: Sequence[Turn], effects: Effects) -> list[Any]:
        """One attempt of a handler of lists: for each event its ``Completion`` or its ``HandlerFailed``.

        Raises:
            HandlerFailed, Interrupted, DatabaseUnavailable: as :meth:`run`, for all of them.
        """
        started = time.monotonic()
        with self._heartbeat.watched(turns[0].lease, handler, [turn.lease for turn in turns[1:]]) as running:
            effects.on_open = running.hold
            if effects.backend is not None:
                running.hold(effects.backend)
            contexts = [self._context(handler, turn.lease, turn.log, running, effects) for turn in turns]
            outcomes = self._call(running, effects, lambda: called_for_all(running, contexts, effects))
        duration_ms = int((time.monotonic() - started) * 1000)
        return [
            each if isinstance(each, HandlerFailed) else Completion(handler.name, each, duration_ms, *context.close())
            for each, context in zip(outcomes, contexts, strict=True)
        ]

    def context_on_loop(
        self, turn: Turn, running: Running, beside: Callable[[Callable[[], object]], object]
    ) -> Context:
        """The context of an ``async def`` handler; ``beside`` as for ``LiveProgress``."""
        lease = turn.lease
        return Context(
            event=lease.event, handler=running.handler.name, attempt=lease.attempt, open_session=None, log=turn.log,
            report=LiveProgress(self._announcer, lease, turn.log, beside=beside), is_cancelled=running.cancelled.is_set,
            is_async=True,
        )  # fmt: skip

    def _context(self, handler: Handler, lease: Lease, log: Logger, running: Running, effects: Effects) -> Context:
        return Context(
            event=lease.event, handler=handler.name, attempt=lease.attempt, open_session=effects.open, log=log,
            report=LiveProgress(self._announcer, lease, log), is_cancelled=running.cancelled.is_set,
            steps=effects.steps(running),
        )  # fmt: skip

    def _call(self, running: Running, effects: Effects, call: Callable[[], Any]) -> Any:
        try:
            with self._interruptions.allowed():
                running.check()
                result = call()
                running.check()
                return result
        except Interrupted:
            raise
        except BaseException as exc:
            if self._interruptions.is_over:  # whatever it raises now comes of that: a statement was cancelled, say
                raise Interrupted from exc
            effects.check(exc)
            lent = effects.lent
            failure = exc if isinstance(exc, HandlerFailed) else failed(exc, running, lent)
            if lent is not None and lent.is_cut_off():
                raise DatabaseUnavailable("the connection was lost while the handler ran") from failure.error
            raise failure from None
        finally:
            running.leave()
            if threading.excepthook is None:  # then Python refuses to make threads, ours as well
                threading.excepthook = threading.__excepthook__
