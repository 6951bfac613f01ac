"""One event, from doorbell to settled, as named steps: claim, run, settle; or fail.

Every step commits before its update is published; whatever is lost in between is found again by maintenance.
"""

import random
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from redis.exceptions import RedisError

from holdfast.domain.errors import AlreadyProcessed, DatabaseUnavailable, LeaseLost
from holdfast.domain.event import Lease
from holdfast.domain.state import State
from holdfast.domain.transitions import Completion, Transition, release, resettle, settle
from holdfast.domain.update import Update
from holdfast.messaging.live import Publisher
from holdfast.processor.context import Context
from holdfast.processor.effects import guarded
from holdfast.processor.interruption import Interrupted, Interruptions
from holdfast.processor.outcomes import InvalidData, NoHandler, failure, quotes_values
from holdfast.processor.progress import LiveProgress
from holdfast.processor.registry import Handler, Handlers
from holdfast.processor.results import checked_result
from holdfast.runtime import logging
from holdfast.runtime.background import Batcher
from holdfast.runtime.logging import Logger
from holdfast.runtime.telemetry import Log, Metrics
from holdfast.storage import Session, lifecycle
from holdfast.storage.database import Database
from holdfast.storage.updates import UpdateKey

__all__ = ["Executor"]


class _HandlerFailed(Exception):
    """Carries what a handler raised past the transaction, which would take a database error for an outage of ours."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


class Executor:
    """Executes events, one per call, from any number of threads.

    Args:
        claims: a database whose commits need not be durable.
        effects: the database in which handlers' effects and settling commit together.
        owner: names this process in leases and recorded errors.
    """

    def __init__(
        self,
        handlers: Handlers,
        *,
        claims: Database,
        effects: Database,
        publisher: Publisher,
        published: Batcher[UpdateKey],
        owner: str,
        lease_seconds: float,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._handlers = handlers
        self._claims = claims
        self._effects = effects
        self._publisher = publisher
        self._published = published
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._draw = draw
        self._interruptions = Interruptions()

    def execute(self, event_id: UUID, version: int) -> None:
        """Do what the doorbell ``(event_id, version)`` asks for, if it is still to be done.

        Never raises for what a handler, PostgreSQL or Redis can do.
        """
        log = logging.get(__name__).bind(event_id=str(event_id))
        try:
            lease = self._claim(event_id, version)
            if lease is None:
                Metrics.stale_doorbells.inc()
                log.debug(Log.STALE_DOORBELL, version=version)
                return
            event = lease.event
            self._attempt(lease, log.bind(event_type=event.type, attempt=lease.attempt, tenant=event.tenant))
        except DatabaseUnavailable as exc:
            # No attempt is judged by an outage: the lease or the next doorbell brings the event back.
            log.warning(Log.DATABASE_UNAVAILABLE, reason=str(exc))

    def interrupt(self) -> None:
        """End the handlers that still run; their events are given back. For a process that has no time left."""
        self._interruptions.interrupt()

    def _claim(self, event_id: UUID, version: int) -> Lease | None:
        with self._claims.transaction() as session:
            claimed = lifecycle.claim_events(
                session, [(event_id, version)], owner=self._owner, lease_seconds=self._lease_seconds
            )
        if not claimed:
            return None
        [(lease, update)] = claimed
        self._publish([update])
        return lease

    def _attempt(self, lease: Lease, log: Logger) -> None:
        handler = self._handlers.find(lease.event.type)
        log = log.bind(handler=handler.name if handler else None)
        started = time.monotonic()
        try:
            updates = self._run_and_settle(lease, handler, log)
        except LeaseLost:
            self._lost(log)
        except AlreadyProcessed:
            log.warning(Log.ALREADY_PROCESSED)
            self._publish(self._apply(resettle(lease.event.id, lease.token)))
        except Interrupted:
            log.warning(Log.RELEASED)
            self._publish(self._apply(release(lease.event.id, lease.token)))
        except DatabaseUnavailable:
            raise
        except _HandlerFailed as failed:
            self._fail(failed.error, lease, handler, log, started=started)
        except Exception as exc:  # noqa: BLE001 (a constraint checked at the commit, say: the attempt has failed)
            self._fail(exc, lease, handler, log, started=started)
        else:
            self._settled(updates, lease, log, handler_name=handler.name if handler else "", started=started)

    def _run_and_settle(self, lease: Lease, handler: Handler | None, log: Logger) -> list[Update]:
        with self._effects.transaction() as session:
            lifecycle.hold(session, lease)
            if handler is None:
                raise NoHandler(f"no handler for {lease.event.type}; deploy one and replay the event")
            started = time.monotonic()
            result = self._run(handler, lease, session, log)
            completion = Completion(handler.name, result, _milliseconds_since(started))
            updates = lifecycle.apply(session, [settle(lease.event.id, lease.token, completion)])
            if not updates:
                raise LeaseLost("the lease was taken away while the handler ran")
        return updates

    def _run(self, handler: Handler, lease: Lease, session: Session, log: Logger) -> Any:
        payload = _payload(handler, lease)
        report = LiveProgress(self._publisher, lease, log)
        try:
            with self._interruptions.allowed(), guarded(session):
                context = Context(
                    event=lease.event, handler=handler.name, attempt=lease.attempt, session=session, log=log,
                    report=report,
                )  # fmt: skip
                result = handler.function(payload, context)
        except Interrupted:
            raise
        except BaseException as exc:  # noqa: BLE001 (a handler that calls sys.exit() has failed, nothing more)
            raise _HandlerFailed(exc) from None
        return checked_result(result)

    def _settled(self, updates: list[Update], lease: Lease, log: Logger, *, handler_name: str, started: float) -> None:
        seconds = time.monotonic() - started
        Metrics.handler_seconds.labels(handler_name, "processed").observe(seconds)
        for update in updates:
            Metrics.end_to_end_seconds.observe((update.at - lease.event.received_at).total_seconds())
        self._publish(updates)
        log.info(Log.PROCESSED, duration_ms=int(seconds * 1000))

    def _fail(self, exc: BaseException, lease: Lease, handler: Handler | None, log: Logger, *, started: float) -> None:
        duration_ms = _milliseconds_since(started)
        transition = failure(exc, lease, handler, draw=self._draw(), duration_ms=duration_ms)
        updates = self._apply(transition)
        if not updates:
            self._lost(log)
            return
        Metrics.handler_seconds.labels(handler.name if handler else "", "failed").observe(duration_ms / 1000)
        _tell_failure(exc, transition, handler, log)
        self._publish(updates)

    def _lost(self, log: Logger) -> None:
        Metrics.lost_leases.inc()
        log.warning(Log.LEASE_LOST)

    def _apply(self, transition: Transition) -> list[Update]:
        with self._effects.transaction() as session:
            return lifecycle.apply(session, [transition], worker=self._owner)

    def _publish(self, updates: list[Update]) -> None:
        try:
            self._publisher.publish(updates)
        except RedisError:
            return  # the relay will
        for update in updates:
            self._published.add((update.event_id, update.version))


def _payload(handler: Handler, lease: Lease) -> Any:
    try:
        return handler.payload.validate_python(lease.event.data)
    except ValidationError as exc:
        raise InvalidData(exc) from None


def _tell_failure(exc: BaseException, transition: Transition, handler: Handler | None, log: Logger) -> None:
    reason = transition.error.type if transition.error else ""
    shown = None if quotes_values(exc) else exc
    if transition.to_state is State.DEAD:
        Metrics.dead_letters.labels(reason).inc()
        log.error(Log.DEAD_LETTER, reason=reason, exc_info=shown)
    else:
        Metrics.retries.labels(handler.name if handler else "").inc()
        log.warning(Log.ATTEMPT_FAILED, reason=reason, retry_in_seconds=transition.delay_seconds, exc_info=shown)


def _milliseconds_since(started: float) -> int:
    return int((time.monotonic() - started) * 1000)
