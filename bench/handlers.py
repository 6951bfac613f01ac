"""Handlers that do next to nothing, so that what is measured is what Holdfast adds."""

import time
from typing import Any

from sqlalchemy import text

from holdfast.processor import BatchContext, Context, Handlers

handlers = Handlers()

INSERT = text("INSERT INTO bench_effect VALUES (:id)")


@handlers.on("bench.*", name="bench")
def nothing(data: Any, ctx: Context) -> None:
    """Do nothing."""


@handlers.on("bench.insert", name="bench-insert")
def insert(data: Any, ctx: Context) -> None:  # noqa: ARG001
    """Write a row."""
    ctx.session.execute(INSERT, {"id": ctx.event.id})


@handlers.on("bench.batched", name="bench-batched", batch=50)
def insert_batched(data: Any, ctx: Context) -> None:  # noqa: ARG001
    """Write a row, in a transaction with others."""
    ctx.session.execute(INSERT, {"id": ctx.event.id})


@handlers.on("bench.listed", name="bench-listed", batch=50)
def insert_list(data: list[Any], ctx: BatchContext) -> None:  # noqa: ARG001
    """Write a row for each event, in one statement."""
    ctx.session.execute(INSERT, [{"id": each.event.id} for each in ctx.items])


@handlers.on("bench.waits", name="bench-waits")
def wait(data: Any, ctx: Context) -> None:  # noqa: ARG001
    """Wait, as for an answer from the network."""
    time.sleep(0.05)
