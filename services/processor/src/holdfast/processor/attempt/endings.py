"""How attempts end by themselves: each end is a transition that is applied, published, counted and logged."""

import contextlib
import time
from collections.abc import Callable

from holdfast.domain.event import Lease
from holdfast.domain.state import State
from holdfast.domain.transitions import Transition, resettle
from holdfast.domain.update import Update
from holdfast.processor.attempt.claiming import Claimer
from holdfast.processor.attempt.joining import Joined
from holdfast.processor.attempt.releasing import UNDECIDED
from holdfast.processor.attempt.reporting import report_failure, report_lost
from holdfast.processor.handlers.outcomes import failure
from holdfast.processor.handlers.registry import Handler
from holdfast.processor.handlers.reports import Report, report_of
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log, Metrics

__all__ = ["Endings"]


class Endings:
    """Ends attempts, from any number of threads."""

    def __init__(self, joined: Joined, claimer: Claimer, *, draw: Callable[[], float], with_texts: bool) -> None:
        self._joined = joined
        self._claimer = claimer
        self._draw = draw
        self._with_texts = with_texts

    def settled(self, update: Update, lease: Lease, log: logging.Logger, *, handler_name: str, started: float) -> None:
        """The event is processed."""
        seconds = time.monotonic() - started
        Metrics.handler_seconds.labels(handler_name, "processed").observe(seconds)
        Metrics.end_to_end_seconds.observe((update.at - lease.event.received_at).total_seconds())
        log.info(Log.PROCESSED, duration_ms=int(seconds * 1000))
        self._call_next(lease)

    def failed(
        self, exc: BaseException, lease: Lease, handler: Handler | None, log: logging.Logger, *, started: float,
        report: Report | None = None,
    ) -> None:  # fmt: skip
        """The attempt has failed: it is tried again, or the event is dead."""
        report = report or report_of(exc, package=handler.package if handler else None)
        transition = self.judge(exc, lease, handler, started=started, report=report)
        if self._joined.apply(transition) is None:
            report_lost(log)
        else:
            self.note_failed(transition, report, lease, handler, log)

    def judge(
        self, exc: BaseException, lease: Lease, handler: Handler | None, *, started: float, report: Report
    ) -> Transition:
        """What a failed attempt comes to."""
        duration_ms = int((time.monotonic() - started) * 1000)
        return failure(exc, lease, handler, draw=self._draw(), duration_ms=duration_ms, report=report)

    def note_failed(
        self, transition: Transition, report: Report, lease: Lease, handler: Handler | None, log: logging.Logger
    ) -> None:
        """The attempt has failed, which is committed and published."""
        duration_ms = transition.error.duration_ms if transition.error else None
        Metrics.handler_seconds.labels(handler.name if handler else "", "failed").observe((duration_ms or 0) / 1000)
        report_failure(report, transition, handler, log, with_texts=self._with_texts)
        if transition.to_state is State.DEAD:
            self._call_next(lease)

    def already_processed(self, lease: Lease, log: logging.Logger) -> None:
        """The processed-event log has the event; its state follows."""
        log.warning(Log.ALREADY_PROCESSED)
        self._joined.apply(resettle(lease.event.id, lease.token))

    def _call_next(self, lease: Lease) -> None:
        """Wake the next event of the subject, if there is one; the poll would, later."""
        if lease.lane is not None:
            with contextlib.suppress(*UNDECIDED):
                self._claimer.call_next(lease.lane)
