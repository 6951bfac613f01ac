"""``async def`` handlers for worker processes (``HOLDFAST_HANDLERS=async_handlers:handlers``), beside plain ones."""

import asyncio
import time
from pathlib import Path
from typing import Any

from sqlalchemy import text

from holdfast.processor import Backoff, Context, Handlers

handlers = Handlers()

AT_ONCE = Backoff(first=0, cap=0, attempts=3)


@handlers.on("async.wait", name="wait", retry=AT_ONCE)
async def wait(seconds: float, ctx: Context) -> dict[str, Any]:
    """Wait, as for another service, and make an event: one for each that is processed."""
    ctx.emit("test.done", None)
    ctx.log.info("awaits", task=asyncio.current_task().get_name())  # type: ignore[union-attr]
    await asyncio.sleep(seconds)
    return {"waited": seconds}


@handlers.on("async.until", name="until")
async def until(path: str, ctx: Context) -> None:  # noqa: ARG001
    """Wait until there is a file."""
    while not Path(path).exists():  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(0.02)


@handlers.on("async.late", name="late", timeout=0.5, retry=Backoff(first=0, cap=0, attempts=1))
async def late(path: str, ctx: Context) -> None:  # noqa: ARG001
    """Take too long, and leave a file when it is cancelled."""
    try:
        await asyncio.sleep(3600)
    finally:
        Path(path).touch()  # noqa: ASYNC240


@handlers.on("async.deaf", name="deaf", timeout=0.5, retry=Backoff(first=0, cap=0, attempts=1))
async def deaf(data: Any, ctx: Context) -> None:  # noqa: ARG001
    """Take no notice of being cancelled."""
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            ctx.log.info("not now")


@handlers.on("async.blocking", name="blocking", timeout=0.5, retry=Backoff(first=0, cap=0, attempts=1))
async def blocking(path: str, ctx: Context) -> None:
    """Keep the loop, in a call that does not await, until there is a file."""
    ctx.log.info("blocks")
    while not Path(path).exists():  # noqa: ASYNC240
        time.sleep(0.02)  # noqa: ASYNC251


@handlers.on("sync.effect", name="effect")
def effect(data: Any, ctx: Context) -> None:  # noqa: ARG001
    ctx.session.execute(text("INSERT INTO effect VALUES (:id, 'sync')"), {"id": ctx.event.id})


@handlers.on("test.done", name="done")
def done(data: Any, ctx: Context) -> None:
    """Take what others make."""
