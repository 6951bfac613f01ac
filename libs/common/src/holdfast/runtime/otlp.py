"""Spans sent to a collector with OpenTelemetry's SDK, as OTLP over HTTP. Imported only where they are.

Spans wait in a bounded queue for a thread of the exporter's own; those that find it full are dropped. So a collector that is
away, slow or full holds nothing up.
"""

import os
import random
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from holdfast.domain.trace import TraceContext
from holdfast.runtime.exporting import open_exporter
from holdfast.runtime.settings import TracingSettings
from holdfast.runtime.tracing import NO_SPAN, Attributes, Kind, Span, Tracer

__all__ = ["open_tracer"]

MAX_QUEUED_SPANS = 4096
"""Some megabytes, for as long as the collector is away."""

MAX_EXPORTED_SPANS = 512
"""In one request."""

DELAY_SECONDS = 1.0
"""For which a span waits for others at most."""

_SAMPLED = trace.TraceFlags(trace.TraceFlags.SAMPLED)
_UNSET, _ERROR = trace.Status(trace.StatusCode.UNSET), trace.Status(trace.StatusCode.ERROR)

_KINDS = {kind: trace.SpanKind[kind.value] for kind in Kind}


def open_tracer(settings: TracingSettings, *, service: str, version: str) -> Tracer:
    """A tracer that exports; made once in a process. It is also what handlers find as the global one."""
    resource = _Resource({
        "service.name": service,
        "service.namespace": "holdfast",
        "service.version": version,
        "service.instance.id": f"{settings.node_name}:{os.getpid()}",
    })  # fmt: skip
    ratio = settings.trace_sample_ratio
    # For spans that a handler begins outside of an attempt; of ours it is asked for those that are kept.
    sampler = ParentBased(TraceIdRatioBased(ratio))
    provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
    processor = BatchSpanProcessor(
        open_exporter(settings),
        max_queue_size=MAX_QUEUED_SPANS,
        schedule_delay_millis=DELAY_SECONDS * 1000,
        max_export_batch_size=MAX_EXPORTED_SPANS,
    )
    provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)
    ours = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
    ours.add_span_processor(processor)
    return _Tracer(ours, processor, ratio, version)


class _Resource(Resource):
    """What this process is. Spans are sorted by it when they are exported, and the SDK's makes JSON of itself for each."""

    def __init__(self, attributes: dict[str, str]) -> None:
        super().__init__(Resource.create(attributes).attributes)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)


class _Tracer:
    def __init__(self, provider: TracerProvider, processor: BatchSpanProcessor, ratio: float, version: str) -> None:
        self._processor = processor
        self._ratio = ratio
        self._draw = random.random
        self._tracer = provider.get_tracer("holdfast", version)
        self._parts = _Parts(provider, processor, version)

    def begin(
        self,
        name: str,
        kind: Kind,
        *,
        parent: TraceContext | None,
        links: Sequence[TraceContext],
        attributes: Attributes,
        began_ns: int | None,
    ) -> Span:
        if not (parent.is_sampled if parent else _is_any_kept(links) or self._draw() < self._ratio):
            return NO_SPAN  # before anything is made: most requests are not kept
        span = self._tracer.start_span(
            name,
            trace.set_span_in_context(trace.NonRecordingSpan(_span_context(parent))) if parent else Context(),
            _KINDS[kind],
            _known(attributes),
            [trace.Link(_span_context(link)) for link in links],
            began_ns,
        )
        return _KeptSpan(span, self._parts)

    def stop(self, seconds: float) -> None:
        # Beside: it waits for the exporter for longer than there may be time.
        stopping = threading.Thread(target=self._processor.shutdown, name="stop-tracing", daemon=True)
        stopping.start()
        stopping.join(seconds)


class _Parts:
    """Makes spans that are over when they are made, for a tenth of what the SDK takes to begin and end one."""

    def __init__(self, provider: TracerProvider, processor: BatchSpanProcessor, version: str) -> None:
        self._resource = provider.resource
        self._new_span_id = provider.id_generator.generate_span_id
        self._processor = processor
        self._scope = InstrumentationScope("holdfast", version)

    def add(
        self, parent: trace.SpanContext, name: str, kind: Kind, *, began_ns: int, ended_ns: int, attributes: Attributes,
        error_type: str | None,
    ) -> None:  # fmt: skip
        own = trace.SpanContext(
            parent.trace_id, self._new_span_id(), is_remote=False, trace_flags=_SAMPLED, trace_state=parent.trace_state
        )
        known, status, events = _known(attributes), _UNSET, list[Event]()
        if error_type is not None:
            known["error.type"] = error_type
            status, events = _ERROR, [Event("exception", {"exception.type": error_type}, ended_ns)]
        self._processor.on_end(
            ReadableSpan(
                name=name, context=own, parent=parent, resource=self._resource, attributes=known, events=events,
                kind=_KINDS[kind], status=status, start_time=began_ns, end_time=ended_ns,
                instrumentation_scope=self._scope,
            )
        )  # fmt: skip


class _KeptSpan(Span):
    __slots__ = ("_parts", "_span")

    def __init__(self, span: trace.Span, parts: _Parts) -> None:
        own = span.get_span_context()
        super().__init__(
            TraceContext(trace.format_trace_id(own.trace_id), trace.format_span_id(own.span_id), is_sampled=True)
        )
        self._span = span
        self._parts = parts

    def child(
        self,
        name: str,
        *,
        began_ns: int,
        ended_ns: int,
        kind: Kind = Kind.INTERNAL,
        attributes: Attributes | None = None,
        error_type: str | None = None,
        is_innermost: bool = False,
    ) -> None:
        parent = self._innermost() if is_innermost else self._span.get_span_context()
        self._parts.add(
            parent, name, kind, began_ns=began_ns, ended_ns=ended_ns, attributes=attributes or {}, error_type=error_type
        )

    def _innermost(self) -> trace.SpanContext:
        own, current = self._span.get_span_context(), trace.get_current_span().get_span_context()
        return current if current.trace_id == own.trace_id else own

    def note(self, attributes: Attributes) -> None:
        for name, value in _known(attributes).items():
            self._span.set_attribute(name, value)

    def fail(self, error_type: str) -> None:
        self._span.set_attribute("error.type", error_type)
        self._span.add_event("exception", {"exception.type": error_type})
        self._span.set_status(trace.StatusCode.ERROR)

    def end(self) -> None:
        if self._span.is_recording():
            self._span.end()

    def current(self) -> AbstractContextManager[object]:
        # What the block raises is told by its type alone, where it is judged.
        return trace.use_span(self._span, record_exception=False, set_status_on_exception=False)


def _is_any_kept(contexts: Sequence[TraceContext]) -> bool:
    return any(context.is_sampled for context in contexts)


def _span_context(context: TraceContext) -> trace.SpanContext:
    return trace.SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(int(context.is_sampled)),
    )


def _known(attributes: Attributes) -> dict[str, str | int | bool]:
    return {name: value for name, value in attributes.items() if value is not None}
