"""Three handlers: one that works and says how far it is, one that fails twice, one that never succeeds.

They only wait where a real shop would work, so that a person can watch. They write nothing, so a killed attempt leaves
nothing behind; ``examples/github-activity`` shows effects that commit with the event.
"""

import time
from typing import Annotated

from pydantic import BaseModel, Field

from holdfast.processor import Backoff, Context, Handlers, Reject, Retry

__all__ = ["Order", "buy_gift_card", "handlers", "order_unicorn_mug", "pack_order"]

handlers = Handlers()

FAILURES = 2
"""Attempts at a gift card that the payment provider does not answer."""

STEPS = ("taking it off the shelf", "checking it", "wrapping it", "printing the label", "handing it to the courier")


class Order(BaseModel):
    """An order of the demo page. ``seconds`` is how long packing takes."""

    order: Annotated[str, Field(min_length=1, max_length=40)]
    item: Annotated[str, Field(min_length=1, max_length=40)]
    seconds: Annotated[float, Field(ge=0, le=40)] = 0


@handlers.on("shop.order.placed", name="demo-pack-order", retry=Backoff(first=2, factor=2, cap=10, attempts=4))
def pack_order(order: Order, ctx: Context) -> dict[str, str]:
    """Pack for ``seconds``, reporting progress about once a second or at each of five steps."""
    reports = max(len(STEPS), round(order.seconds))
    for done in range(reports):
        ctx.progress(done / reports, STEPS[done * len(STEPS) // reports])
        time.sleep(order.seconds / reports)
    ctx.progress(1, "handed to the courier")
    return {"order": order.order, "shipped": order.item}


@handlers.on("shop.giftcard.bought", name="demo-gift-card", retry=Backoff(first=3, factor=1, cap=3, attempts=4))
def buy_gift_card(order: Order, ctx: Context) -> dict[str, str]:
    """Fail twice as a payment provider that does not answer would, and succeed after that."""
    ctx.progress(0.3, "asking the payment provider")
    time.sleep(order.seconds)
    if ctx.attempt <= FAILURES:
        raise Retry("the payment provider does not answer", after=3)
    ctx.progress(0.9, "paid")
    return {"order": order.order, "paid": order.item}


@handlers.on("shop.unicorn.ordered", name="demo-unicorn-mug")
def order_unicorn_mug(order: Order, ctx: Context) -> None:
    """Refuse: trying again would not help, so the event is a dead letter at once."""
    ctx.progress(0.5, "looking for a unicorn mug")
    time.sleep(order.seconds)
    raise Reject("there are no unicorn mugs, and there will be none", code="out_of_stock")
