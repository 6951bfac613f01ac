"""Reading and writing W3C Trace Context, and what an event's origin makes of it."""

import pytest

from holdfast.domain.trace import Origin, TraceContext, read_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("text", "is_sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"01-{TRACE}-{SPAN}-01-what-comes-later", True),
    ],
)
def test_a_traceparent_names_a_span(text: str, is_sampled: bool) -> None:
    assert read_traceparent(text) == TraceContext(TRACE, SPAN, is_sampled)


@pytest.mark.parametrize(
    "text",
    [
        None, "", "00", f"00-{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}-01-more", f"ff-{TRACE}-{SPAN}-01", f"0-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01\n",
        f"01-{TRACE}-{SPAN}-01-{'x' * 500}", f"\u0660\u0660-{TRACE}-{SPAN}-01",
    ],
)  # fmt: skip
def test_what_names_no_span_is_as_if_there_were_none(text: str | None) -> None:
    assert read_traceparent(text) is None


def test_a_context_is_written_as_it_was_read() -> None:
    assert TraceContext(TRACE, SPAN, is_sampled=True).traceparent == f"00-{TRACE}-{SPAN}-01"


def test_only_a_trace_that_is_kept_is_gone_on_with() -> None:
    kept = Origin.of("r", TraceContext(TRACE, SPAN, is_sampled=True))
    other = Origin.of("r", TraceContext(TRACE, SPAN, is_sampled=False))

    assert (kept.context, other.context) == (TraceContext(TRACE, SPAN, is_sampled=True), None)
    assert (other.trace_id, Origin.of("r", None).trace_id) == (TRACE, None)
