"""A handler that does nothing, so that what is measured is what Holdfast adds."""

from typing import Any

from holdfast.processor import Context, Handlers

handlers = Handlers()


@handlers.on("bench.*", name="bench")
def nothing(data: Any, ctx: Context) -> None:
    """Do nothing."""
