"""A collector: an HTTP server that takes OTLP over HTTP and decodes it, as any other would."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

__all__ = ["Collector", "Kept", "collector"]


@dataclass(frozen=True, slots=True)
class Kept:
    """One span as it was exported; ids in hexadecimal, empty for a parent that there is none."""

    service: str
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[tuple[str, str], ...]
    attributes: dict[str, Any]
    events: tuple[tuple[str, dict[str, Any]], ...]
    is_failed: bool
    status_text: str
    began_ns: int
    ended_ns: int


class Collector:
    """What it has been sent."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: list[bytes] = []
        self._lock = threading.Lock()
        self._spans: list[Kept] = []

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        spans = [
            _kept(span, _values(of_resource.resource.attributes)["service.name"])
            for of_resource in request.resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]
        with self._lock:
            self.bodies.append(body)
            self._spans += spans

    def spans(self) -> list[Kept]:
        """All of them, by when they began."""
        with self._lock:
            return sorted(self._spans, key=lambda span: span.began_ns)

    def of_event(self, event_id: str) -> list[Kept]:
        """Every span of the traces in which the event was sent or processed."""
        spans = self.spans()
        traces = {span.trace_id for span in spans if span.attributes.get("messaging.message.id") == event_id}
        return [span for span in spans if span.trace_id in traces]

    def linked_to(self, event_id: str) -> list[Kept]:
        """Spans that are linked to one in which the event was sent or processed."""
        spans = self.spans()
        own = {span.span_id for span in spans if span.attributes.get("messaging.message.id") == event_id}
        return [span for span in spans if own & {span_id for _, span_id in span.links}]


@contextmanager
def collector() -> Iterator[Collector]:
    """One that runs within the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = Collector(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _kept(span: Any, service: str) -> Kept:
    return Kept(
        service=service,
        name=span.name,
        kind=span.kind,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        attributes=_values(span.attributes),
        events=tuple((event.name, _values(event.attributes)) for event in span.events),
        is_failed=span.status.code == span.status.STATUS_CODE_ERROR,
        status_text=span.status.message,
        began_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
