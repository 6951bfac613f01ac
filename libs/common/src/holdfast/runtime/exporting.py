"""What becomes of spans on their way to the collector: texts of exceptions are left out, and losses are told."""

import logging as standard_logging
from collections.abc import Sequence
from urllib.parse import unquote

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from holdfast.runtime import logging
from holdfast.runtime.settings import TracingSettings
from holdfast.runtime.telemetry import Log

__all__ = ["open_exporter"]

log = logging.get(__name__)

EXPORT_SECONDS = 5.0
"""For one export, tries again included."""

TELL_SECONDS = 60.0
"""Between two lines about a collector that is away."""

TEXTS = frozenset({"exception.message", "exception.stacktrace"})


def open_exporter(settings: TracingSettings) -> SpanExporter:
    """Sends spans to the collector of these settings."""
    # The library tells each failed export, with the text of the exception; the exporter below tells it in our way.
    standard_logging.getLogger("opentelemetry").setLevel(standard_logging.CRITICAL)
    headers = settings.otlp_headers.get_secret_value() if settings.otlp_headers else ""
    exporter = OTLPSpanExporter(
        endpoint=f"{(settings.otlp_endpoint or '').rstrip('/')}/v1/traces",
        headers=dict(_header(each) for each in headers.split(",") if each.strip()),
        timeout=EXPORT_SECONDS,
    )
    return _Telling(exporter if settings.log_error_texts else _WithoutTexts(exporter))


def _header(text: str) -> tuple[str, str]:
    """``name=value``, percent-encoded, as ``OTEL_EXPORTER_OTLP_HEADERS`` has them."""
    name, _, value = text.partition("=")
    return name.strip().lower(), unquote(value.strip())


class _Telling(SpanExporter):
    """Tells of spans that the collector did not take: a line a minute, and one when it takes them again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._rarely = logging.Rarely(seconds=TELL_SECONDS)
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            if self._lost:
                log.info(Log.SPANS_EXPORTED_AGAIN, lost=self._lost)
            self._lost = 0
        else:
            self._lost += len(spans)
            self._rarely.say(log.warning, Log.SPANS_NOT_EXPORTED, count=len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class _WithoutTexts(SpanExporter):
    """Leaves the texts of exceptions out of every span, those that a handler's own code has made included: OpenTelemetry
    records message and stack by itself, and both may quote a payload.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([_without_texts(span) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _without_texts(span: ReadableSpan) -> ReadableSpan:
    if not span.events and not span.status.description:
        return span
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes,
        events=[_event_without_texts(event) for event in span.events],
        links=span.links,
        kind=span.kind,
        status=trace.Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _event_without_texts(event: Event) -> Event:
    attributes = {name: value for name, value in (event.attributes or {}).items() if name not in TEXTS}
    return Event(event.name, attributes, event.timestamp)
