"""One call of a handler outside of a worker, for tests: as it is declared, with an event that is made up."""

import math
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from holdfast.domain.errors import ConfigurationError
from holdfast.processor.attempt.calling import called
from holdfast.processor.attempt.effects import Effects, check_held, ended_before
from holdfast.processor.attempt.failures import HandlerFailed, failed
from holdfast.processor.attempt.heartbeat import Running
from holdfast.processor.handlers.context import Context
from holdfast.processor.handlers.outcomes import TransactionEnded
from holdfast.processor.handlers.registry import Handler, Handlers, declarations_of
from holdfast.processor.testing.awaiting import called_to_the_end, wrapped
from holdfast.processor.testing.sample import Emitted, EmittedGroup, GivenSteps, sample_lease
from holdfast.runtime import logging
from holdfast.storage import Session
from holdfast.storage.held import is_committed, own_transaction
from holdfast.storage.lending import lend

__all__ = ["Cancelled", "Case", "Subject", "resolved"]

__tracebackhide__ = True

Subject = Callable[..., Any] | Handler | None
"""A handler's function, or what ``handlers.find(type)`` returns."""

Cancelled = bool | Callable[[], bool]
"""What ``ctx.cancelled`` shows; a function is asked each time."""


class Case:
    """One call of a handler, ready to be made."""

    def __init__(
        self, handler: Subject, payload: Any, session: Session | None, name: str | None, number: int,
        event_id: UUID | None, cancelled: Cancelled, attributes: dict[str, Any], steps: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.handler = resolved(handler, name)
        if self.handler.is_transactional and session is None:
            raise ConfigurationError(
                f"{self.handler.name} is a transactional handler: pass session=…, or declare it with transactional=False"
            )
        self.session = session if self.handler.is_transactional else None
        self.progress: list[tuple[float, str | None]] = []
        self.lease = sample_lease(self.handler, payload, event_id, attributes, number)
        # Begins never: a test that is being debugged has all the time it wants.
        self._running = Running(self.lease, self.handler, started=math.inf)
        self._cancelled = cancelled
        self.notebook = GivenSteps(steps or {})

    def call(self) -> Any:
        """The result of a call in the session's transaction.

        Raises:
            HandlerFailed: as in an attempt.
        """
        effects = Effects(self.session)
        return called_to_the_end(self._running, self._context(effects), effects)

    def call_in_savepoint(self) -> Any:
        """The same, with the effects of a failed attempt rolled back, and with a look at what was done to the transaction.

        Raises:
            HandlerFailed: as in an attempt.
        """
        session = self.session
        if session is None:
            return self.call()
        lent = lend(session, own_transaction(session))
        savepoint = session.begin_nested()
        try:
            effects = Effects(session, lent)
            result = called(self._running, self._context(effects), effects)
        except HandlerFailed as exc:
            if is_committed(session, lent.transaction):
                _begin_anew(session)
                raise HandlerFailed(TransactionEnded(), ended_before(exc.report), lent) from None
            savepoint.rollback()
            raise
        try:
            check_held(session, lent)
            savepoint.commit()
        except TransactionEnded as exc:
            _begin_anew(session)
            raise failed(exc, self._running, lent) from None
        except Exception as exc:  # noqa: BLE001 (a statement has failed before, which the handler kept to itself)
            savepoint.rollback()
            raise failed(exc, self._running, lent) from None
        return result

    def emitted(self) -> tuple[list[Emitted], list[EmittedGroup]]:
        """What it emitted, once it was called; they are not recorded."""
        events, groups = self._made.close()
        return [Emitted.of(event) for event in events], [EmittedGroup.of(group, events) for group in groups]

    def _context(self, effects: Effects) -> Context:
        cancelled = self._cancelled
        self._made = Context(
            event=self.lease.event, handler=self.handler.name, attempt=self.lease.attempt, open_session=effects.open,
            log=logging.get(self.handler.function.__module__),
            report=lambda fraction, message: self.progress.append((fraction, message)),
            is_cancelled=cancelled if callable(cancelled) else lambda: cancelled, is_async=self.handler.is_async,
            steps=None if self.handler.is_transactional or self.handler.is_async else self.notebook.steps(),
        )  # fmt: skip
        return self._made


def _begin_anew(session: Session) -> None:
    """On another connection: the handler has ended the transaction, and the savepoint that SQLAlchemy would go back to."""
    session.connection().invalidate()
    session.rollback()


def resolved(subject: Subject, name: str | None) -> Handler:
    """The handler as it is declared.

    Raises:
        ConfigurationError: a name that is not declared, or no handler.
    """
    if subject is None:
        raise ConfigurationError("no handler was found for that type")
    return subject if isinstance(subject, Handler) else _declared(subject, name)


def _declared(function: Callable[..., Any], name: str | None) -> Handler:
    """As it is declared. A function that is not is taken for a transactional handler, or for an ``async def`` one."""
    found = [each for each in declarations_of(function) if name in (None, each.name)]
    if len(found) == 1:
        return found[0]
    if declared := declarations_of(function):
        names = ", ".join(each.name for each in declared)
        raise ConfigurationError(f"{declared[0].place}: it is declared as {names}; pass one of them as name=…")

    handlers = Handlers()
    handlers.on("test", name=name or "handler-under-test")(wrapped(function))
    return next(iter(handlers))
