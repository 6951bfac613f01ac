"""Handlers of ``test_million``: each leaves one row, which nothing keeps from being doubled."""

from typing import Any

from sqlalchemy import text

from holdfast.processor import Context, Handlers

handlers = Handlers()


@handlers.on("million", name="million", batch=50)
def leave_effect(data: Any, ctx: Context) -> None:  # noqa: ARG001
    ctx.session.execute(text("INSERT INTO effect VALUES (:id)"), {"id": ctx.event.id})
