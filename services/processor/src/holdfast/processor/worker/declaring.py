"""Storing the schedules that handlers declare, once a start."""

from collections.abc import Iterable

from holdfast.processor.handlers.schedules import Declared
from holdfast.runtime import logging
from holdfast.runtime.cron import next_tick
from holdfast.runtime.telemetry import Log
from holdfast.storage.audit import handlers_actor
from holdfast.storage.database import Database
from holdfast.storage.schedules import Change, Put, put_schedule

__all__ = ["Declaring"]

log = logging.get(__name__)


class Declaring:
    """The declarations that are not stored yet. It has no thread: its turns are those of recovery, every two seconds.

    What is there as it is declared is left alone; what an operator paused stays so. Nothing is deleted: another processor
    may declare what this one does not.
    """

    def __init__(self, database: Database, declared: Iterable[Declared]) -> None:
        self._database = database
        self._left = list(declared)
        self._counts = dict.fromkeys(Change, 0)

    def turn(self) -> None:
        """Store what is left, each in a transaction of its own.

        Raises:
            DatabaseUnavailable, StatementTooSlow, TransactionConflict: the next turn stores the rest.
        """
        if not self._left:
            return
        while self._left:
            self._store(self._left[0])
            self._left.pop(0)
        log.info(Log.SCHEDULES_DECLARED, **{change.value: count for change, count in self._counts.items()})

    def _store(self, declared: Declared) -> None:
        actor = handlers_actor(declared.tenant)
        put = self._database.call(put_schedule, actor, declared.spec, next_tick=next_tick, is_declared=True)
        if isinstance(put, Put):
            self._counts[put.change] += 1
        else:
            log.error(Log.SCHEDULE_NOT_DECLARED, schedule=declared.spec.name, tenant=declared.tenant)
