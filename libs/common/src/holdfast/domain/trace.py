"""Where work belongs in a trace (W3C Trace Context, https://www.w3.org/TR/trace-context/), and what an event came from."""

import re
from typing import NamedTuple

__all__ = ["NO_ORIGIN", "Origin", "TraceContext", "is_traceparent", "read_traceparent"]

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.{0,400})?", re.ASCII)

SAMPLED = 0x01
"""The one flag of ``trace-flags`` that says whether anybody keeps the trace."""


class TraceContext(NamedTuple):
    """A span: 32 and 16 lower-case hexadecimal digits, neither all zero; and whether the trace is kept."""

    trace_id: str
    span_id: str
    is_sampled: bool

    @property
    def traceparent(self) -> str:
        """As a header."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.is_sampled):02x}"


class Origin(NamedTuple):
    """What an event came from, kept with it.

    Attributes:
        request_id: of the POST that brought it; ``None`` for a copy that a replay made, and before revision 0013.
        trace_id: of the trace that it belongs to, 32 hexadecimal digits; ``None`` without one.
        span_id: the span that its first attempt is a child of, 16 hexadecimal digits; ``None`` where the trace is not kept.
    """

    request_id: str | None = None
    trace_id: str | None = None
    span_id: str | None = None

    @property
    def context(self) -> TraceContext | None:
        """The span to go on from; ``None`` where nobody keeps the trace."""
        return (
            None if self.trace_id is None or self.span_id is None else TraceContext(self.trace_id, self.span_id, True)
        )

    @staticmethod
    def of(request_id: str, context: TraceContext | None) -> "Origin":
        """Of a request in this context."""
        if context is None:
            return Origin(request_id)
        return Origin(request_id, context.trace_id, context.span_id if context.is_sampled else None)


NO_ORIGIN = Origin()


def is_traceparent(text: str) -> bool:
    """Whether a text has the form of a ``traceparent`` without anything behind its flags."""
    found = _TRACEPARENT.fullmatch(text)
    return found is not None and found[5] is None


def read_traceparent(text: str | None) -> TraceContext | None:
    """The span that a ``traceparent`` names. ``None`` for what names none: it is then as if there were none, as the
    specification has it.

    A version above 00 may have more behind the flags; ``ff`` is none.
    """
    found = _TRACEPARENT.fullmatch(text) if text else None
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5] is not None):
        return None
    trace_id, span_id = found[2], found[3]
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return TraceContext(trace_id, span_id, bool(int(found[4], 16) & SAMPLED))
