"""What became of requests to accept events: a line for each event at debug, and one a minute for all of them."""

import threading
from collections import Counter
from collections.abc import Sequence

from flask import g

from holdfast.domain.event import NewEvent
from holdfast.ingest.intake.record import Outcome
from holdfast.runtime import logging
from holdfast.runtime.background import Repeater
from holdfast.runtime.telemetry import Log

__all__ = ["Traffic", "note_events"]

log = logging.get(__name__)

INTERVAL_SECONDS = 60.0

NOT_REFUSED = frozenset({"accepted", "duplicate"})


def note_events(events: Sequence[NewEvent], outcomes: Sequence[Outcome]) -> None:
    """Events of the request were recorded, or were there before."""
    g.duplicates = sum(outcome.recorded.is_duplicate for outcome in outcomes)
    g.accepted = len(outcomes) - g.duplicates
    if logging.is_debugging():
        for event, outcome in zip(events, outcomes, strict=True):
            trace = {"trace_id": event.origin.trace_id} if event.origin.trace_id else {}
            log.debug(
                Log.ACCEPTED, event_id=str(outcome.recorded.update.event_id), event_type=event.type,
                duplicate=outcome.recorded.is_duplicate, **trace,
            )  # fmt: skip


class Traffic:
    """Counts for one process, from any number of threads; says nothing while nothing comes."""

    def __init__(self, *, interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._lock = threading.Lock()
        self._accepted = self._duplicates = 0
        self._refused: Counter[str] = Counter()
        self._telling = Repeater(
            "tell-traffic", self._tell, interval_seconds=interval_seconds, is_needed=lambda: self._has_come
        )

    def start(self) -> None:
        """Begin to tell."""
        self._telling.start()

    def stop(self) -> None:
        """Tell the rest."""
        self._telling.stop()
        self._tell()

    def note(self, outcome: str, *, accepted: int, duplicates: int) -> None:
        """A request was answered. ``outcome`` as the metric has it; the counts are those of its events."""
        with self._lock:
            self._accepted += accepted
            self._duplicates += duplicates
            if outcome not in NOT_REFUSED:
                self._refused[outcome] += 1
        self._telling.wake()

    @property
    def _has_come(self) -> bool:
        return bool(self._accepted or self._duplicates or self._refused)

    def _tell(self) -> None:
        with self._lock:
            if not self._has_come:
                return
            accepted, duplicates, refused = self._accepted, self._duplicates, dict(self._refused)
            self._accepted = self._duplicates = 0
            self._refused.clear()
        log.info(
            Log.TRAFFIC, accepted=accepted, duplicates=duplicates, refused=sum(refused.values()), refused_by_code=refused
        )  # fmt: skip
