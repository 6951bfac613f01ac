"""A handler's transaction, begun when the handler first asks for its session."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from holdfast.domain.event import Lease
from holdfast.processor.attempt.effects import Effects
from holdfast.processor.attempt.interruption import Interruptions
from holdfast.storage import Session, lifecycle
from holdfast.storage.backend import Backend
from holdfast.storage.database import Database
from holdfast.storage.lending import lend

__all__ = ["LazyEffects"]


class LazyEffects(Effects):
    """A transaction that begins when the handler first asks for its session, with the event's row locked.

    A context manager: its end commits, or rolls back where the block raises, what has begun.
    """

    def __init__(
        self, database: Database, lease: Lease, interruptions: Interruptions, *, timeout_seconds: float
    ) -> None:
        super().__init__()
        self._database = database
        self._lease = lease
        self._interruptions = interruptions
        self._timeout_seconds = timeout_seconds
        self._transaction = ExitStack()
        self._opening = threading.Lock()  # a handler may have threads of its own
        self._error: Exception | None = None

    @property
    def open(self) -> Callable[[], Session] | None:
        return self._open

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._transaction.__exit__(kind, error, traceback)

    def check(self, raised: BaseException | None = None) -> None:  # noqa: ARG002 (what kept it from beginning comes first)
        if self._error is not None:
            raise self._error

    def _open(self) -> Session:
        with self._opening:
            self.check()
            return self.session or self._begin()

    def _begin(self) -> Session:
        with self._interruptions.suspended():  # an exception from another thread would break the pool
            try:
                session = self._transaction.enter_context(self._database.transaction())
                transaction = lifecycle.hold(session, self._lease, timeout_seconds=self._timeout_seconds)
                lent = lend(session, transaction)
            except Exception as exc:
                self._error = exc
                raise
            self.session, self.lent, self.backend = session, lent, Backend(session)
            self.on_open(self.backend)
        self._keep(session)
        return session
