"""Handlers of the operator's tour: a mended one for the history's events, a slow one, and one that keeps an order."""

import time
from typing import Any

from holdfast.processor import Backoff, Context, Handlers

handlers = Handlers()


@handlers.on("com.example.*", name="book-order")
def book(data: Any, ctx: Context) -> dict[str, bool]:  # noqa: ARG001
    """What killed events is mended by now."""
    return {"ok": True}


@handlers.on("tour.slow", name="make-invoice")
def make_invoice(data: Any, ctx: Context) -> None:  # noqa: ARG001
    """Wait, as for an answer from the network."""
    time.sleep(0.4)


@handlers.on("tour.ordered", name="charge", ordering="subject", retry=Backoff(first=600, cap=600, attempts=5))
def charge(data: dict[str, bool], ctx: Context) -> None:  # noqa: ARG001
    """Fail where the event says so, and be tried again in ten minutes."""
    if data["fails"]:
        raise ConnectionError("the bank does not answer")
