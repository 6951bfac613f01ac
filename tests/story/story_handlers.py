"""Handlers of the tests that follow one event through everything."""

import logging
import sys
from typing import Any

from sqlalchemy import text

from holdfast.processor import Backoff, BatchContext, Context, Handlers, Reject

handlers = Handlers()

EXPORTING = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "opentelemetry.proto", "google.protobuf", "requests")

CANNOT = "cannot charge"
"""A line of code may be in the log, with the frames; what it makes may not."""

AT_ONCE = Backoff(first=0, cap=0, attempts=3)


@handlers.on("story.flaky", name="flaky", retry=AT_ONCE)
def flaky(data: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Fails at first, with its payload in the exception's text. Executes something before and, when it succeeds, within a
    span of its own.
    """
    logging.getLogger("shop").warning("flaky runs")
    ctx.session.execute(text("SET LOCAL application_name = 'flaky'"))
    with _own_span():
        if ctx.attempt == 1:
            raise RuntimeError(f"{CANNOT} {data}")
        ctx.session.execute(text("SELECT 1 WHERE :name <> 'marker'"), {"name": str(data)})
    return {"done": True}


@handlers.on("story.plain", name="plain")
def plain(data: dict[str, Any], ctx: Context) -> dict[str, Any]:  # noqa: ARG001
    """Writes nothing, and says what its process has imported of that with which spans are made and exported."""
    logging.getLogger("shop").warning("plain runs")
    return {"imported": sorted(name for name in sys.modules if name.startswith(EXPORTING))}


@handlers.on("story.wrong", name="wrong", retry=AT_ONCE)
def wrong(data: dict[str, Any], ctx: Context) -> None:
    """Has PostgreSQL quote its payload in an error."""
    ctx.session.execute(text("SELECT CAST(:text AS integer)"), {"text": str(data)})


@handlers.on("story.rejected", name="rejected")
def rejected(data: dict[str, Any], ctx: Context) -> None:  # noqa: ARG001
    """Gives up, with its payload in the reason."""
    raise Reject(f"no such order: {data}")


@handlers.on("story.listed", name="listed", batch=10)
def listed(data: dict[str, Any], ctx: Context) -> None:
    """Runs with others in one transaction."""
    logging.getLogger("shop").warning("listed runs")
    ctx.session.execute(text("SELECT 1"))
    if data.get("fails") and ctx.attempt == 1:
        raise KeyError(str(data))


@handlers.on("story.busy", name="busy")
def busy(data: dict[str, Any], ctx: Context) -> None:
    """Executes as many statements as it is told."""
    for _ in range(data["statements"]):
        ctx.session.execute(text("SELECT 1"))


@handlers.on("story.bulk", name="bulk", batch=10)
def bulk(data: list[dict[str, Any]], ctx: BatchContext) -> None:  # noqa: ARG001
    """Executes one statement for all of them."""
    ctx.session.execute(text("SELECT 1"))


def _own_span() -> Any:
    # Not at the top: where nothing is exported, nothing may be imported.
    if "opentelemetry.sdk.trace" not in sys.modules:
        import contextlib

        return contextlib.nullcontext()
    from opentelemetry import trace

    return trace.get_tracer("shop").start_as_current_span("charge")  # which records the exception's text by itself
