"""Traces, as far as services know of them: spans that are kept while an exporter is configured, and otherwise cost nothing.

Nothing of OpenTelemetry is imported here. :func:`configure` imports ``runtime.otlp`` in a process that exports, after its
fork: threads and sockets of an exporter do not live in two processes. Until then, and of traces that are not sampled, every
span is :data:`NO_SPAN`.

Names and attributes follow OpenTelemetry's semantic conventions, those for messaging
(https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/) where they apply. Attributes are ids, names and
counts: never payloads, keys, or an exception's text.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from typing import Protocol

from holdfast.domain.trace import TraceContext
from holdfast.runtime.settings import TracingSettings

__all__ = ["NO_SPAN", "Attributes", "Kind", "Span", "Tracer", "begin", "configure", "is_on", "stop"]

Attributes = Mapping[str, str | int | bool | None]
"""``None`` is left out."""

STOP_SECONDS = 2.0
"""For what is left to reach the collector when the process ends; then it is dropped."""

_NOTHING: Attributes = {}
_NO_BLOCK = nullcontext()


class Kind(Enum):
    """What a span is to those around it; the values are OpenTelemetry's names."""

    INTERNAL = "INTERNAL"
    SERVER = "SERVER"
    CLIENT = "CLIENT"
    PRODUCER = "PRODUCER"
    CONSUMER = "CONSUMER"


class Span:
    """A piece of work in a trace. This one is kept by nobody.

    Attributes:
        context: its place in its trace; ``None`` where it is not kept.
    """

    __slots__ = ("context",)

    def __init__(self, context: TraceContext | None = None) -> None:
        self.context = context

    def child(
        self,
        name: str,
        *,
        began_ns: int,
        ended_ns: int,
        kind: Kind = Kind.INTERNAL,
        attributes: Attributes = _NOTHING,
        error_type: str | None = None,
        is_innermost: bool = False,
    ) -> None:
        """A part of it that is over; times in nanoseconds since 1970, as ``time_ns`` has them.

        ``error_type``: it has failed, as with :meth:`fail`. ``is_innermost``: within :meth:`current` a child of the span that
        others have begun there last, if they have.
        """

    def note(self, attributes: Attributes) -> None:
        """Say more of it."""

    def fail(self, error_type: str) -> None:
        """It has failed; by the type of what was raised, or a code of ours."""

    def end(self) -> None:
        """It is over. May be called again."""

    def current(self) -> AbstractContextManager[object]:
        """Within the block, spans that others begin in this thread (a handler's, say) are its children."""
        return _NO_BLOCK


NO_SPAN = Span()


class Tracer(Protocol):
    """What exports spans."""

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
        """Begin a span: in its parent's trace and kept if that is, or else in one of its own. That is kept where one of the
        traces is that it is linked to: a story is kept as a whole. What has neither parent nor links is kept by the ratio.

        ``began_ns``: in nanoseconds since 1970, where it is not now.
        """

    def stop(self, seconds: float) -> None:
        """Export what is left, within this time."""


class _Process:
    """The tracer of this process: as with its logs there is one or none, set where it starts."""

    tracer: Tracer | None = None


def configure(settings: TracingSettings, *, service: str, version: str) -> None:
    """Export the spans of this process, if an endpoint is configured. Call it after the last fork.

    Raises:
        ConfigurationError: an endpoint is configured and the exporter is not installed.
    """
    if settings.otlp_endpoint is None or settings.trace_sample_ratio == 0:
        _Process.tracer = None
        return
    from holdfast.runtime.otlp import open_tracer

    _Process.tracer = open_tracer(settings, service=service, version=version)


def stop(seconds: float = STOP_SECONDS) -> None:
    """The process is about to end: export what is left. Takes no longer than this, whatever the collector does."""
    tracer, _Process.tracer = _Process.tracer, None
    if tracer is not None:
        tracer.stop(seconds)


def is_on() -> bool:
    """Whether any span is kept."""
    return _Process.tracer is not None


def begin(
    name: str, kind: Kind = Kind.INTERNAL, *, parent: TraceContext | None = None, links: Sequence[TraceContext] = (),
    attributes: Attributes = _NOTHING, began_ns: int | None = None,
) -> Span:  # fmt: skip
    """Begin a span; see :meth:`Tracer.begin`."""
    tracer = _Process.tracer
    if tracer is None or (parent is not None and not parent.is_sampled):
        return NO_SPAN
    return tracer.begin(name, kind, parent=parent, links=links, attributes=attributes, began_ns=began_ns)
