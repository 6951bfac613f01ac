"""A worker process at work: how it begins, whether it is well, and how it ends within its grace."""

import threading
import time

from holdfast.processor.handlers.registry import Handlers
from holdfast.processor.worker.board import Board
from holdfast.processor.worker.canary import Canary
from holdfast.processor.worker.grace import Grace
from holdfast.processor.worker.parts import parts
from holdfast.processor.worker.roles import Role
from holdfast.runtime import logging
from holdfast.runtime.health import Check, serve_health
from holdfast.runtime.settings import ProcessorSettings
from holdfast.runtime.telemetry import Log, Metrics, export_handlers
from holdfast.storage.pools import note_connections
from holdfast.storage.readiness import check_work

__all__ = ["WorkerProcess"]

log = logging.get(__name__)

INSIST_SECONDS = 0.5
"""Between two interruptions of handlers whose process has to go."""


class WorkerProcess:
    """Everything that a worker process does, from its start to its end."""

    def __init__(
        self, settings: ProcessorSettings, role: Role, handlers: Handlers, board: Board, canary: Canary
    ) -> None:
        self._settings = settings
        self._role = role
        self._handlers = handlers
        self._board = board
        self._parts = parts(settings, role, handlers, canary, board)
        self._started_at = time.monotonic()
        self._log = log.bind(worker=role.name)
        self._is_stopping = False

    @property
    def is_stuck(self) -> bool:
        """Whether a handler hangs for good."""
        return self._parts.executor.is_stuck

    @property
    def is_idle(self) -> bool:
        """Whether no event is worked on."""
        return self._parts.crew.wait_until_idle(0)

    def start(self) -> None:
        """Begin."""
        self._parts.start()
        serve_health(
            self._settings.metrics_host, self._role.metrics_port, self._checks(), is_alive=self._are_all_alive
        )  # fmt: skip
        export_handlers(each.name for each in self._handlers)
        self._log.info(Log.HANDLERS_LOADED, handlers={each.name: list(each.patterns) for each in self._handlers})

    def note_use(self) -> None:
        """Say how much of it is in use."""
        slots = self._parts.crew.slots
        Metrics.slots_busy.set(min(slots.busy, slots.count))
        Metrics.slots_total.set(0 if self._is_stopping else slots.count)
        if (aside := self._parts.crew.aside) is not None:
            Metrics.async_running.set(min(aside.places.busy, aside.places.count))
            Metrics.async_limit.set(0 if self._is_stopping else aside.places.count)
        note_connections(self._parts.claims, self._parts.effects)

    def is_alive(self) -> bool:
        """Whether every thread that takes part in the work runs, and the last poll is recent."""
        return self._is_stopping or self._parts.are_alive()

    def stop(self, grace: Grace) -> None:
        """Take nothing new on, wait for what runs, interrupt it shortly before the grace ends, and let go of everything.

        Whatever nothing ends is given back all the same: the process must be gone right after.
        """
        self._is_stopping = True
        self._log.info(Log.STOPPING)
        poller, slots = self._parts.poller, self._parts.crew.slots
        poller.stop_claiming()
        slots.close()
        self._parts.crew.close()
        # Beside: it waits for handlers too, but for less time than there is (dramatiq.common.join_all takes from the time
        # that is left what was waited so far, for every thread anew).
        listening = threading.Thread(target=self._stop_listening, args=[grace], name="stop-listening", daemon=True)
        listening.start()
        if not self._parts.crew.wait_until_idle(grace.seconds_to_interrupt()):
            self._interrupt(grace)
        listening.join(grace.seconds_to_give_up())  # doorbells that were not begun are being handed back
        self._parts.close()
        self._log.info(Log.STOPPED)

    def _interrupt(self, grace: Grace) -> None:
        executor, is_over = self._parts.executor, False
        while not is_over and grace.seconds_to_give_up():
            executor.interrupt()
            is_over = self._parts.crew.wait_until_idle(min(INSIST_SECONDS, grace.seconds_to_give_up()))
        if not is_over:
            executor.abandon()

    def _stop_listening(self, grace: Grace) -> None:
        stopping = [
            threading.Thread(target=each.stop, kwargs={"timeout_seconds": grace.seconds_to_give_up()}, daemon=True)
            for each in self._parts.listeners
        ]
        for each in stopping:
            each.start()
        for each in stopping:
            each.join()

    def _are_all_alive(self) -> bool:
        """Whether this process is, and every other one was lately: nobody else is asked for the health of those."""
        return self.is_alive() and (
            self._is_stopping or not self._board.missing(time.monotonic(), since=self._started_at)
        )

    def _checks(self) -> dict[str, Check]:
        return {
            "database": Check(lambda: self._parts.effects.call(check_work)),
            "live": Check(self._parts.publisher.ping, is_optional=True),
            "broker": Check(self._parts.bell.ping, is_optional=True),
        }
