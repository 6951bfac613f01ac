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
from holdfast.storage import windows
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


class _Committed(NamedTuple):
    """One event of a transaction. ``replaced``: what else is to be told of that transaction, with its first event."""

    recorded: Recorded
    replaced: Sequence[Recorded] = ()


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
        self._group = self._groups()
        # Apart, so that an event without a window never waits for the key of one that has it.
        self._windowed = self._groups()

    def record(self, event: NewEvent) -> Outcome:
        """Record one event, in a transaction with those that other threads record at this moment.

        Raises:
            DatabaseUnavailable: nothing was recorded, as far as is known; sending again is safe.
        """
        return (self._group if event.window is None else self._windowed).add(event)

    def record_batch(self, batch: Sequence[NewEvent]) -> list[Outcome]:
        """Record all of them or none, in a transaction of their own; answers are in the order given.

        Raises:
            ConflictInBatch: an identity belongs to an event with other data, of the batch itself perhaps.
            DatabaseUnavailable: as :meth:`record`.
        """
        return self._announce(reconnecting(lambda: self._commit_whole(batch))) if batch else []

    def _commit_whole(self, batch: Sequence[NewEvent]) -> list[_Committed]:
        with self._database.transaction() as session:
            kept = windows.record(session, batch, grace_seconds=self._grace_seconds)
            if conflicts := [index for index, each in enumerate(kept.recorded) if each.is_conflict]:
                raise ConflictInBatch(conflicts)
            replaced = windows.supersede(session, kept.superseding)
        Metrics.group_size.observe(len(batch))
        return _with_what_was_replaced(kept.recorded, replaced)

    def _commit(self, new: Sequence[NewEvent]) -> list[_Committed]:
        with self._database.transaction() as session:
            kept = windows.record(session, new, grace_seconds=self._grace_seconds)
            replaced = windows.supersede(session, kept.superseding)
        Metrics.group_size.observe(len(new))
        return _with_what_was_replaced(kept.recorded, replaced)

    def _groups(self) -> "GroupCommit[NewEvent, _Committed, Outcome]":
        return GroupCommit(
            lambda events: reconnecting(lambda: self._commit(events)), self._announce, weigh=_weight, most=GROUP_BYTES
        )

    def _announce(self, committed: Sequence[_Committed]) -> list[Outcome]:
        committed_ns = time.time_ns() if tracing.is_on() else 0
        told = [each for one in committed for each in (one.recorded, *one.replaced) if each.is_new]
        updates = [each.update for each in told]
        due = [each.doorbell for each in told if each.is_due]
        self._announcer.publish(updates)
        published_ns = time.time_ns() if committed_ns else 0
        is_enqueued = self._announcer.ring(due)
        times = Times(committed_ns, published_ns, time.time_ns()) if committed_ns else None
        return [
            Outcome(one.recorded, is_enqueued=one.recorded.is_due and is_enqueued, times=times) for one in committed
        ]


def _with_what_was_replaced(recorded: Sequence[Recorded], replaced: Sequence[Recorded]) -> list[_Committed]:
    """An event that another one of its own transaction has replaced is answered with how it ended."""
    if not replaced:
        return [_Committed(each) for each in recorded]
    last = {each.update.event_id: each for each in replaced}
    first = {each.update.event_id for each in recorded if each.is_new}
    answers = [_Committed(last.get(each.update.event_id, each) if each.is_new else each) for each in recorded]
    told = [each for each in replaced if each.update.event_id not in first]
    return [answers[0]._replace(replaced=told), *answers[1:]]


def _weight(event: NewEvent) -> int:
    return len(event.data_json or event.data_bytes or b"") + EVENT_BYTES
