"""Several handlers of one type, for worker processes (``HOLDFAST_HANDLERS=also_handlers:handlers``)."""

import os
import signal
from typing import Any

from sqlalchemy import text

from holdfast.processor import Backoff, Context, Handlers, Reject

handlers = Handlers()

AT_ONCE = Backoff(first=0, cap=0, attempts=5)


def leave_effect(ctx: Context, name: str) -> None:
    ctx.session.execute(text("INSERT INTO effect VALUES (:id, :note)"), {"id": ctx.event.parent_id, "note": name})


@handlers.on("shop.order", name="charge")
def charge(data: Any, ctx: Context) -> str:
    """The order's own handler."""
    ctx.session.execute(text("INSERT INTO effect VALUES (:id, 'charge')"), {"id": ctx.event.id})
    if data.get("killed_by") == "charge" and ctx.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if data.get("is_bad"):
        raise Reject("no such card")
    return "charged"


@handlers.on("shop.order", also=True, name="mail", retry=AT_ONCE)
def mail(data: Any, ctx: Context) -> str:
    """Fail twice."""
    leave_effect(ctx, "mail")
    if data.get("killed_by") == "mail" and ctx.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if ctx.attempt < 3 and "killed_by" not in data:
        raise ConnectionError("the mail server is away")
    return "mailed"


@handlers.on("shop.*", also=True, name="audit")
async def audit(data: Any, ctx: Context) -> None:  # noqa: ARG001
    """Never succeed."""
    raise Reject("no audit today", code="closed")


@handlers.on("shop.visit", also=True, name="count")
def count(data: Any, ctx: Context) -> None:  # noqa: ARG001
    """A type that has no handler of its own."""
    leave_effect(ctx, "count")
