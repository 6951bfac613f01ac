"""Where a request and what it brings belong in a trace: its ids on every line of it, with its events, and as spans."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from flask import Response, g, request
from structlog.contextvars import bind_contextvars

from holdfast.domain.event import NewEvent
from holdfast.domain.trace import Origin, TraceContext, read_traceparent
from holdfast.ingest.intake.record import Outcome
from holdfast.runtime import tracing
from holdfast.runtime.tracing import NO_SPAN, Kind, Span

__all__ = ["Sending", "begin_request", "end_request", "sending"]

UNTRACED = frozenset({"/livez", "/readyz"})
"""Asked every few seconds, by what nobody looks for in traces."""


def begin_request(environ: dict[str, Any]) -> None:
    """Find out what trace the request belongs to, and begin its span."""
    # That of the event is the next best: who sends one in binary mode has often nothing else.
    given = environ.get("HTTP_TRACEPARENT") or environ.get("HTTP_CE_TRACEPARENT")
    context = read_traceparent(given) if given else None
    g.context, g.is_context_given, g.span = context, context is not None, NO_SPAN
    if tracing.is_on():
        _begin_span(context)
    if g.context is not None:
        bind_contextvars(trace_id=g.context.trace_id)
        if g.span is not NO_SPAN:
            bind_contextvars(span_id=g.context.span_id)


def _begin_span(parent: TraceContext | None) -> None:
    route = request.url_rule.rule if request.url_rule else None
    if route in UNTRACED:
        return
    attributes = {
        "http.request.method": request.method,
        "http.route": route,
        "url.scheme": request.scheme,
        "holdfast.request_id": g.request_id,
    }
    name = f"{request.method} {route}" if route else request.method
    g.span = tracing.begin(name, Kind.SERVER, parent=parent, attributes=attributes)
    g.context = g.span.context or parent


def end_request(response: Response) -> None:
    """End the request's span, if there is one."""
    span: Span = g.get("span", NO_SPAN)
    if span is NO_SPAN:
        return
    span.note({"http.response.status_code": response.status_code})
    if response.status_code >= 500:
        span.fail(g.get("outcome") or str(response.status_code))
    span.end()


class Sending:
    """Events of a request that are being recorded.

    Attributes:
        events: with their origin.
    """

    def __init__(self, events: Sequence[NewEvent]) -> None:
        self._span = self._begin(events)
        self._began_ns = time.time_ns() if self._span is not NO_SPAN else 0
        self.events = [replace(event, origin=self._origin(event)) for event in events]

    def sent(self, outcome: Outcome) -> None:
        """They are recorded, and everybody was told; the times are those of all that were recorded together."""
        if self._span is NO_SPAN or outcome.times is None:
            return
        committed_ns, published_ns, rung_ns = outcome.times
        g.span.child("record", began_ns=self._began_ns, ended_ns=committed_ns)
        if outcome.recorded.is_new:
            self._span.child("publish", began_ns=committed_ns, ended_ns=published_ns)
            self._span.child("ring", began_ns=published_ns, ended_ns=rung_ns)

    def failed(self, exc: BaseException) -> None:
        """Nothing was recorded."""
        self._span.fail(type(exc).__name__)

    def end(self) -> None:
        """They are done with, in either way."""
        self._span.end()

    def _begin(self, events: Sequence[NewEvent]) -> Span:
        if g.span is NO_SPAN or not events:
            return NO_SPAN
        [first, *others] = events
        # An event that says itself what trace it is from stays in it, as it would without an exporter.
        own = None if others else read_traceparent(first.traceparent)
        parent, link = g.context, own
        if own is not None and not g.is_context_given:
            parent, link = own, g.context
        elif own is not None and own.trace_id == g.context.trace_id:
            link = None
        return tracing.begin(
            "send" if others else f"send {first.type}", Kind.PRODUCER, parent=parent, links=[link] if link else [],
            attributes=_attributes(first, len(events)),
        )  # fmt: skip

    def _origin(self, event: NewEvent) -> Origin:
        own = None if g.is_context_given else read_traceparent(event.traceparent)
        context = self._span.context or g.context
        if own is not None and (context is None or own.trace_id != context.trace_id):
            context = own
        return Origin.of(g.request_id, context)


@contextmanager
def sending(events: Sequence[NewEvent]) -> Iterator[Sending]:
    """The block records the events, as ``Sending.events`` has them, and says so."""
    begun = Sending(events)
    try:
        yield begun
    except BaseException as exc:
        begun.failed(exc)
        raise
    finally:
        begun.end()


def _attributes(event: NewEvent, count: int) -> tracing.Attributes:
    every = {
        "messaging.system": "holdfast",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "holdfast.tenant": event.tenant,
    }
    if count > 1:
        return every | {"messaging.batch.message_count": count}
    return every | {
        "messaging.destination.name": event.type,
        "messaging.message.id": str(event.id),
        "cloudevents.event_id": event.ce_id,
        "cloudevents.event_source": event.source,
        "cloudevents.event_type": event.type,
    }
