"""One event, from doorbell to settled, as named steps: claim, run, settle; or fail.

Every step commits before its update is published; whatever is lost in between is found again by maintenance.
"""

import json
import random
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from redis.exceptions import RedisError

from holdfast.domain.errors import AlreadyProcessed, DatabaseUnavailable, LeaseLost
from holdfast.domain.event import Lease, canonical_json
from holdfast.domain.state import State
from holdfast.domain.transitions import Completion, release, resettle, settle
from holdfast.domain.update import Update
from holdfast.messaging.live import Publisher
from holdfast.processor.context import Context
from holdfast.processor.outcomes import InvalidResult, NoHandler, failure
from holdfast.processor.registry import Handler, Handlers
from holdfast.runtime import logging
from holdfast.runtime.background import Batcher
from holdfast.runtime.ids import utc_now
from holdfast.runtime.logging import Logger
from holdfast.runtime.telemetry import Log, Metrics
from holdfast.storage import Session, lifecycle
from holdfast.storage.database import Database
from holdfast.storage.updates import UpdateKey

__all__ = ["Executor"]

MAX_RESULT_BYTES = 32 * 1024
"""A result travels in an update, and an update frame has at most 64 KiB."""


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

    def execute(self, event_id: UUID, version: int) -> None:
        """Do what the doorbell ``(event_id, version)`` asks for, if it is still to be done.

        Never raises for what an event or a server can do; an interruption of the thread is passed on after the lease has
        been given back.
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

    def _claim(self, event_id: UUID, version: int) -> Lease | None:
        with self._claims.transaction() as session:
            claimed = lifecycle.claim_events(
                session, [(event_id, version)], owner=self._owner, lease_seconds=self._lease_seconds
            )
        for lease, update in claimed:
            self._publish([update])
            return lease
        return None

    def _attempt(self, lease: Lease, log: Logger) -> None:
        handler = self._handlers.find(lease.event.type)
        started = time.monotonic()
        try:
            updates = self._run_and_settle(lease, handler, log)
        except LeaseLost:
            Metrics.lost_leases.inc()
            log.warning(Log.LEASE_LOST)
        except AlreadyProcessed:
            log.warning(Log.ALREADY_PROCESSED)
            self._publish(self._apply_once(resettle(lease.event.id, lease.token)))
        except DatabaseUnavailable:
            raise
        except Exception as exc:  # noqa: BLE001 (a handler may raise anything; it is stored and logged)
            self._fail(exc, lease, handler, log, duration_ms=_milliseconds_since(started))
        except BaseException:  # Dramatiq interrupts a thread that is still at work when the grace has passed
            self._publish(self._apply_once(release(lease.event.id, lease.token)))
            raise
        else:
            self._settled(updates, lease, handler, log, seconds=time.monotonic() - started)

    def _run_and_settle(self, lease: Lease, handler: Handler | None, log: Logger) -> list[Update]:
        if handler is None:
            raise NoHandler(f"no handler for {lease.event.type}; deploy one and replay the event")
        with self._effects.transaction() as session:
            lifecycle.hold(session, lease)
            started = time.monotonic()
            result = self._run(handler, lease, session, log.bind(handler=handler.name))
            session.flush()  # the handler's pending rows, and their errors, belong to the handler
            completion = Completion(handler.name, result, _milliseconds_since(started))
            updates = lifecycle.apply(session, [settle(lease.event.id, lease.token, completion)])
            if not updates:
                raise LeaseLost("the lease was taken away while the handler ran")
        return updates

    def _run(self, handler: Handler, lease: Lease, session: Session, log: Logger) -> Any:
        try:
            payload = handler.payload.validate_python(lease.event.data)
        except ValidationError as exc:
            exc.is_payload = True  # type: ignore[attr-defined]  # one that the handler raises itself is its own failure
            raise
        report = self._reporter(lease, log)
        context = Context(
            event=lease.event, handler=handler.name, attempt=lease.attempt, session=session, log=log, report=report
        )
        return _checked(handler.function(payload, context))

    def _reporter(self, lease: Lease, log: Logger) -> Callable[[int, float, str | None], None]:
        event = lease.event

        def report(step: int, fraction: float, message: str | None) -> None:
            progress = {"fraction": fraction, "message": message}
            update = Update(
                event_id=event.id, tenant=event.tenant, type=event.type, audience=event.audience,
                state=State.PROCESSING, version=lease.version, step=step, attempt=lease.attempt, at=utc_now(),
                detail={"progress": progress},
            )  # fmt: skip
            try:
                self._publisher.publish([update])
            except RedisError:
                log.debug(Log.NOT_PUBLISHED)

        return report

    def _settled(
        self, updates: list[Update], lease: Lease, handler: Handler | None, log: Logger, *, seconds: float
    ) -> None:
        name = handler.name if handler else ""
        Metrics.handler_seconds.labels(name, "processed").observe(seconds)
        for update in updates:
            Metrics.end_to_end_seconds.observe((update.at - lease.event.received_at).total_seconds())
        self._publish(updates)
        log.info(Log.PROCESSED, handler=name, duration_ms=int(seconds * 1000))

    def _fail(self, exc: Exception, lease: Lease, handler: Handler | None, log: Logger, *, duration_ms: int) -> None:
        transition = failure(exc, lease, handler, draw=self._draw(), duration_ms=duration_ms)
        updates = self._apply_once(transition)
        if not updates:
            Metrics.lost_leases.inc()
            log.warning(Log.LEASE_LOST)
            return
        name = handler.name if handler else ""
        Metrics.handler_seconds.labels(name, "failed").observe(duration_ms / 1000)
        reason = transition.error.type if transition.error else ""
        if transition.to_state is State.DEAD:
            Metrics.dead_letters.labels(reason).inc()
            log.error(Log.DEAD_LETTER, handler=name, reason=reason, exc_info=exc)
        else:
            Metrics.retries.labels(name).inc()
            delay = transition.delay_seconds
            log.warning(Log.ATTEMPT_FAILED, handler=name, reason=reason, retry_in_seconds=delay, exc_info=exc)
        self._publish(updates)

    def _apply_once(self, transition: Any) -> list[Update]:
        with self._effects.transaction() as session:
            return lifecycle.apply(session, [transition], worker=self._owner)

    def _publish(self, updates: list[Update]) -> None:
        try:
            self._publisher.publish(updates)
        except RedisError:
            return  # the relay will
        for update in updates:
            self._published.add((update.event_id, update.version))


def _checked(result: Any) -> Any:
    """The result, if the processed-event log and an update can carry it."""
    try:
        text = canonical_json(result)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidResult(f"a handler returns what JSON can carry: {exc}") from exc
    if size > MAX_RESULT_BYTES:
        raise InvalidResult(f"a result has at most {MAX_RESULT_BYTES} bytes as JSON, not {size}; return a reference")
    if "\\u0000" in text:
        raise InvalidResult(r"a result has no \u0000 in it: PostgreSQL can not store it")
    return json.loads(text)


def _milliseconds_since(started: float) -> int:
    return int((time.monotonic() - started) * 1000)
