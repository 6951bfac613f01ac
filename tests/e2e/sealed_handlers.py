"""Handlers that leave nothing of their events anywhere, for the test that looks everywhere."""

from typing import Any

from holdfast.processor import Backoff, Context, Handlers, Retry

handlers = Handlers()


@handlers.on("test.sealed", name="sealed", retry=Backoff(first=0, cap=0, attempts=3))
def sealed(data: dict[str, Any], ctx: Context) -> None:
    """Fails once, then emits an event with the same data, and a group whose last event has it too."""
    if ctx.attempt == 1:
        raise Retry("not at once")
    ctx.emit("test.sealed.child", data)
    ctx.emit_group([{"type": "test.sealed.child", "data": data}], then=("test.sealed.done", data))


@handlers.on("test.sealed.child", name="child")
def child(data: dict[str, Any], ctx: Context) -> None:  # noqa: ARG001
    """Needs the data."""
    if not data["secret"]:
        raise ValueError


@handlers.on("test.sealed.done", name="done")
def done(data: dict[str, Any], ctx: Context) -> None:  # noqa: ARG001
    """Needs the data of the group."""
    if not data["data"]["secret"]:
        raise ValueError
