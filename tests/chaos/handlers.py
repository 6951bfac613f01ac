"""Handlers for the fault tests. Their table ``effect`` has no constraint that could hide a doublet."""

import json
import time
import urllib.request
from typing import Any

from sqlalchemy import text

from holdfast.processor import Backoff, Context, Handlers, Retry

handlers = Handlers()

AT_ONCE = Backoff(first=0, cap=0, attempts=5)


@handlers.on("chaos.plain", name="plain", retry=AT_ONCE)
def plain(data: Any, ctx: Context) -> None:  # noqa: ARG001
    """Leaves an effect."""
    leave_effect(ctx)


@handlers.on("chaos.blocked", name="blocked", retry=AT_ONCE)
def blocked(data: dict[str, Any], ctx: Context) -> None:
    """Leaves an effect, then waits while the test holds the advisory lock ``data["lock"]``."""
    leave_effect(ctx)
    wait_for_lock(data["lock"], ctx)


@handlers.on("chaos.failing-once", name="failing-once")
def failing_once(data: dict[str, Any], ctx: Context) -> None:
    """Leaves an effect, waits for the lock, and in the first attempt asks for another one after ``data["after"]`` seconds."""
    leave_effect(ctx)
    wait_for_lock(data["lock"], ctx)
    if ctx.attempt == 1:
        raise Retry(f"the other side is away: {data}", after=data["after"])


@handlers.on("chaos.outside", name="outside", transactional=False, retry=AT_ONCE)
def outside(data: dict[str, Any], ctx: Context) -> None:
    """Asks the service at ``data["url"]``, again and again, until it has done its work or this attempt is to stop."""
    while not ask(data["url"], "do", ctx):
        if ctx.cancelled:
            ask(data["url"], "stopped", ctx)
            return
        time.sleep(0.05)


def ask(url: str, what: str, ctx: Context) -> bool:
    """Tell the outside service the attempt and its idempotency key; whether its work is done."""
    body = json.dumps({"what": what, "attempt": ctx.attempt, "key": ctx.idempotency_key})
    with urllib.request.urlopen(url, data=body.encode(), timeout=10) as answer:  # noqa: S310 (the test's own)
        return bool(json.load(answer))


def leave_effect(ctx: Context) -> None:
    """Write the row that a test counts."""
    effect = text("INSERT INTO effect VALUES (:event_id, :attempt)")
    ctx.session.execute(effect, {"event_id": ctx.event.id, "attempt": ctx.attempt})


def wait_for_lock(key: int, ctx: Context) -> None:
    """Wait within the transaction until the test lets go; others may hold the lock at the same time."""
    ctx.session.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": key})
