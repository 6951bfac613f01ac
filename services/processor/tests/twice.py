"""Handlers that a worker refuses to start with."""

from typing import Any

from holdfast.processor import Context, Handlers

handlers = Handlers()


@handlers.on("test.a", name="first")
def first(data: Any, ctx: Context) -> None: ...


@handlers.on("test.a", name="second")
def second(data: Any, ctx: Context) -> None: ...
