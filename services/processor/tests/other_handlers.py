"""Handlers of another pool (``HOLDFAST_HANDLERS=other_handlers:handlers``), for a type of theirs alone."""

from typing import Any

from sqlalchemy import text

from holdfast.processor import Context, Handlers

handlers = Handlers()


@handlers.on("other.order", name="other")
def other(data: Any, ctx: Context) -> None:  # noqa: ARG001
    ctx.session.execute(text("INSERT INTO effect VALUES (:id, 'other')"), {"id": ctx.event.id})
