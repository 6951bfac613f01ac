"""One claimed event, from the moment a thread begins with it until it has ended: its ids on every line, and its span."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from holdfast.domain.event import Lease
from holdfast.processor.attempt.statements import telling
from holdfast.processor.handlers.registry import Handler
from holdfast.runtime import logging, tracing
from holdfast.runtime.telemetry import Metrics
from holdfast.runtime.tracing import NO_SPAN, Kind, Span
from holdfast.storage.events import Recorded
from holdfast.storage.watching import Tell

__all__ = ["Turn", "after_all", "fields_of"]

FIRST_VERSION = 2
"""Of an event that is claimed for the first time: it was recorded as the first."""


@dataclass(slots=True, eq=False)
class Turn:
    """An event that a thread has begun with.

    Attributes:
        fields: its ids, as every line of the attempt has them.
        span: ``process``, until the event has ended.
        started: when its handler began, in seconds of the monotonic clock.
        end: to be called once, when the event has ended or was given back.
        emitted: the events that its handler made and that are committed with it, still to be told.
    """

    lease: Lease
    handler: Handler | None
    fields: Mapping[str, object]
    log: logging.Logger
    end: Callable[[], object]
    span: Span = NO_SPAN
    started: float = field(default_factory=time.monotonic)
    emitted: Sequence[Recorded] = ()

    @staticmethod
    def of(lease: Lease, handler: Handler | None, end: Callable[[], object]) -> "Turn":
        """With a logger that knows the event."""
        if lease.version == FIRST_VERSION:
            waited = max(0.0, (lease.claimed_at - lease.event.due_since).total_seconds())
            Metrics.queue_wait_seconds.labels(handler.name if handler else "").observe(waited)
        fields, span = fields_of(lease, handler), _begin(lease, handler)
        if span is not NO_SPAN and span.context is not None:
            is_linked = span.context.trace_id != fields.get("trace_id")
            # One trace id finds every line of an event. A span id belongs to its trace.
            own = {"attempt_trace_id": span.context.trace_id} if is_linked else {}
            fields = {**fields, "span_id": span.context.span_id, **own}
            end = _ends_both(span, end)
        return Turn(lease, handler, fields, logging.get(__name__).bind(**fields), end, span)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Within the block this thread works on the event: lines that it writes and spans that it begins belong to it."""
        with logging.about(self.fields), self.span.current():
            yield

    def tell(self) -> Tell | None:
        """What is to be told of the statements of its handler; ``None`` where nobody keeps its span."""
        return telling(self.span)

    def note_settled(self, began_ns: int) -> None:
        """What the attempt came to is committed, since this moment: its share of a transaction of several, perhaps."""
        self._note_part("settle", began_ns, Kind.CLIENT)

    def note_published(self, began_ns: int) -> None:
        """…and shown live."""
        self._note_part("publish", began_ns, Kind.INTERNAL)

    def _note_part(self, name: str, began_ns: int, kind: Kind) -> None:
        if self.span is not NO_SPAN:
            self.span.child(name, began_ns=began_ns, ended_ns=time.time_ns(), kind=kind)


def fields_of(lease: Lease, handler: Handler | None) -> dict[str, object]:
    """The ids of an attempt, as lines about it have them."""
    event = lease.event
    fields: dict[str, object] = {
        "event_id": str(event.id),
        "event_type": event.type,
        "attempt": lease.attempt,
        "tenant": event.tenant,
        "handler": handler.name if handler else None,
    }
    if event.origin.request_id is not None:
        fields["request_id"] = event.origin.request_id
    if event.origin.trace_id is not None:
        fields["trace_id"] = event.origin.trace_id
    return fields


def _begin(lease: Lease, handler: Handler | None) -> Span:
    """The first attempt goes on in the trace of the request. Later ones, and those of copies, may be days later: each has a
    trace of its own, linked to that.
    """
    event = lease.event
    origin = event.origin.context
    if origin is None or not tracing.is_on():
        return NO_SPAN  # ingest has decided that nobody keeps it
    is_first = lease.version == FIRST_VERSION and event.replay_of is None
    return tracing.begin(
        f"process {event.type}",
        Kind.CONSUMER,
        parent=origin if is_first else None,
        links=[] if is_first else [origin],
        attributes={
            "messaging.system": "holdfast",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": event.type,
            "messaging.message.id": str(event.id),
            "cloudevents.event_id": event.ce_id,
            "cloudevents.event_source": event.source,
            "cloudevents.event_type": event.type,
            "holdfast.tenant": event.tenant,
            "holdfast.attempt": lease.attempt,
            "holdfast.handler": handler.name if handler else None,
            "holdfast.request_id": event.origin.request_id,
        },
    )


def _ends_both(span: Span, end: Callable[[], object]) -> Callable[[], object]:
    def ended() -> None:
        span.end()
        end()

    return ended


def after_all(count: int, end: Callable[[], object]) -> Callable[[], object]:
    """Calls ``end`` when it has been called ``count`` times, from whatever threads."""
    left = [None] * (count - 1)

    def ended() -> None:
        try:
            left.pop()  # atomic
        except IndexError:
            end()

    return ended
