"""More handlers for the fault tests, beside those of ``handlers``: slow, failing, and deadly ones."""

import os
import time
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text

from handlers import handlers as declared  # type: ignore[import-not-found] # in the services' PYTHONPATH
from handlers import leave_effect
from holdfast.processor import Backoff, Context, Handlers

handlers: Handlers = declared

AT_ONCE = Backoff(first=0, cap=0, attempts=5)


@handlers.on("chaos.working", name="working", retry=AT_ONCE)
def working(data: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Leaves an effect, works for ``data["seconds"]``, and says what this process takes for the time."""
    leave_effect(ctx)
    ctx.session.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": data.get("seconds", 0)})
    return {"time": time.time(), "now": datetime.now(UTC).timestamp()}


@handlers.on("chaos.exit", name="exit", retry=AT_ONCE)
def leave_at_once(data: dict[str, Any], ctx: Context) -> None:  # noqa: ARG001
    """Takes its process with it, as a crash in a C extension would."""
    leave_effect(ctx)
    os._exit(1)


@handlers.on("chaos.failing", name="failing", retry=Backoff(first=0.4, factor=2, cap=0.8, attempts=4))
def failing(data: dict[str, Any], ctx: Context) -> None:
    """Raises until the test has "deployed a fix", which is a row in the table ``fix``."""
    leave_effect(ctx)
    if not ctx.session.scalar(text("SELECT count(*) FROM fix")):
        raise ConnectionError(f"the other side is away: {data}")


@handlers.on("chaos.flaky", name="flaky", retry=Backoff(first=2, cap=2, attempts=5))
def flaky(data: dict[str, Any], ctx: Context) -> None:
    """Fails once."""
    leave_effect(ctx)
    if ctx.attempt == 1:
        raise ConnectionError(f"the other side is away: {data}")
