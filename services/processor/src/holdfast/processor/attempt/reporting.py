"""What the log and the metrics say of an attempt that failed."""

from holdfast.domain.state import State
from holdfast.domain.transitions import Transition
from holdfast.processor.attempt.heartbeat import Running
from holdfast.processor.attempt.turn import fields_of
from holdfast.processor.handlers.outcomes import HandlerTimeout
from holdfast.processor.handlers.registry import Handler
from holdfast.processor.handlers.reports import Report, report_of
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log, Metrics

__all__ = ["report_abandoned", "report_failure", "report_lost"]


def report_abandoned(running: Running, outcome: Transition) -> None:
    """Of a handler that nothing ended: given back, or out of time."""
    lease, handler = running.lease, running.handler
    log = logging.get(__name__).bind(**fields_of(lease, handler))
    if outcome.error is None:
        log.warning(Log.RELEASED)
    else:
        report_failure(
            report_of(HandlerTimeout(outcome.error.message), package=handler.package),
            outcome,
            handler,
            log,
            with_texts=False,
        )


def report_lost(log: logging.Logger) -> None:
    """Of an attempt whose lease was given to another worker."""
    Metrics.lost_leases.inc()
    log.warning(Log.LEASE_LOST)


def report_failure(
    report: Report, transition: Transition, handler: Handler | None, log: logging.Logger, *, with_texts: bool
) -> None:
    """Of an attempt that is tried again, or that made a dead letter. Exceptions' texts may quote payloads."""
    stack = report.traceback if with_texts else report.frames
    fields = {"exception": stack, "error.type": report.type} if stack else {}
    name = handler.name if handler else ""
    if transition.to_state is State.DEAD:
        Metrics.dead_letters.labels(name, report.type).inc()
        log.error(Log.DEAD_LETTER, reason=report.type, **fields)
    else:
        Metrics.retries.labels(name).inc()
        log.warning(Log.ATTEMPT_FAILED, reason=report.type, retry_in_seconds=transition.delay_seconds, **fields)
