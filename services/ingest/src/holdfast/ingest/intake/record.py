"""The use case: record an event, and only then tell the rest of the world."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from holdfast.domain.event import NewEvent
from holdfast.ingest.connection import reconnecting
from holdfast.messaging.announce import Announcer
from holdfast.runtime import tracing
from holdfast.runtime.group_commit import GroupCommit
from holdfast.runtime.telemetry import Metrics
from holdfast.storage import events
from holdfast.storage.database import Database
from holdfast.storage.events import Recorded

__all__ = ["ConflictInBatch", "Outcome", "Recorder", "Times"]

GROUP_BYTES = 1024 * 1024
"""Data of events that share a transaction. Larger ones gain nothing by it, and the statement is in memory as a whole."""

EVENT_BYTES = 1024
"""What an event weighs beside its data, about."""


class Times(NamedTuple):
    """When events were committed, shown live and rung for, in nanoseconds since 1970."""

    committed_ns: int
    published_ns: int
    rung_ns: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to answer. ``is_enqueued``: the doorbell was rung for it; otherwise the event is found by other means.

    ``times``: ``None`` where nobody traces anything.
    """

    recorded: Recorded
    is_enqueued: bool
    times: Times | None = None


class ConflictInBatch(Exception):
    """Events have the identity of others. ``indexes``: which ones. Nothing was recorded."""

    def __init__(self, indexes: list[int]) -> None:
        super().__init__()
        self.indexes = indexes


class Recorder:
    """Records events durably, then publishes and rings, neither of which can undo or hold up the answer."""

    def __init__(self, database: Database, announcer: Announcer, *, grace_seconds: float) -> None:
        self._database = database
        self._announcer = announcer
        self._grace_seconds = grace_seconds
        self._group: GroupCommit[NewEvent, Recorded, Outcome] = GroupCommit(
            lambda events: reconnecting(lambda: self._commit(events)), self._announce, weigh=_weight, most=GROUP_BYTES
        )

    def record(self, event: NewEvent) -> Outcome:
        """Record one event, in a transaction with those that other threads record at this moment.

        Raises:
            DatabaseUnavailable: nothing was recorded, as far as is known; sending again is safe.
        """
        return self._group.add(event)

    def record_batch(self, batch: Sequence[NewEvent]) -> list[Outcome]:
        """Record all of them or none, in a transaction of their own; answers are in the order given.

        Raises:
            ConflictInBatch: an identity belongs to an event with other data, of the batch itself perhaps.
            DatabaseUnavailable: as :meth:`record`.
        """
        return self._announce(reconnecting(lambda: self._commit_whole(batch))) if batch else []

    def _commit_whole(self, batch: Sequence[NewEvent]) -> list[Recorded]:
        with self._database.transaction() as session:
            recorded = events.record(session, batch, grace_seconds=self._grace_seconds)
            if conflicts := [index for index, each in enumerate(recorded) if each.is_conflict]:
                raise ConflictInBatch(conflicts)
        Metrics.group_size.observe(len(batch))
        return recorded

    def _commit(self, new: Sequence[NewEvent]) -> list[Recorded]:
        with self._database.transaction() as session:
            recorded = events.record(session, new, grace_seconds=self._grace_seconds)
        Metrics.group_size.observe(len(new))
        return recorded

    def _announce(self, recorded: Sequence[Recorded]) -> list[Outcome]:
        committed_ns = time.time_ns() if tracing.is_on() else 0
        updates = [each.update for each in recorded if each.is_new]
        due = [each.doorbell for each in recorded if each.is_new and each.due_at is None]
        self._announcer.publish(updates)
        published_ns = time.time_ns() if committed_ns else 0
        is_enqueued = self._announcer.ring(due)
        times = Times(committed_ns, published_ns, time.time_ns()) if committed_ns else None
        return [
            Outcome(each, is_enqueued=each.is_new and each.due_at is None and is_enqueued, times=times)
            for each in recorded
        ]


def _weight(event: NewEvent) -> int:
    return len(event.data_json or event.data_bytes or b"") + EVENT_BYTES
