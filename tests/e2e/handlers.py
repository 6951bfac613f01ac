"""Handlers for the tests that break things. Their table ``effect`` has no constraint that could hide a doublet."""

from typing import Any

from sqlalchemy import text

from holdfast.processor import Backoff, Context, Handlers

handlers = Handlers()

LOCK = 4242


@handlers.on("test.blocked", name="blocked", retry=Backoff(first=0, cap=0, attempts=5))
def blocked(data: dict[str, Any], ctx: Context) -> None:  # noqa: ARG001
    """Leaves an effect, then waits for the advisory lock that the test holds."""
    ctx.session.execute(text("INSERT INTO effect VALUES (:event_id)"), {"event_id": str(ctx.event.id)})
    ctx.session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})


@handlers.on("test.plain", name="plain")
def plain(data: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Leaves an effect."""
    ctx.session.execute(text("INSERT INTO effect VALUES (:event_id)"), {"event_id": str(ctx.event.id)})
    return data
