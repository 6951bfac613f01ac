"""What happens to an order afterwards, in the processor."""

from pydantic import BaseModel

from flask_shop.tables import Order
from holdfast.processor import Context, Handlers, Reject

__all__ = ["Placed", "handlers", "pack", "send_receipt"]

handlers = Handlers()


class Placed(BaseModel):
    order: str


@handlers.on("flask-shop.order.placed", name="flask-shop-pack")
def pack(placed: Placed, ctx: Context) -> None:
    """Pack it, and have the receipt sent: both, or neither."""
    _order(placed, ctx).is_packed = True
    ctx.emit("flask-shop.receipt.requested", placed, subject=ctx.event.subject)


@handlers.on("flask-shop.receipt.requested", name="flask-shop-send-receipt")
def send_receipt(placed: Placed, ctx: Context) -> None:
    _order(placed, ctx).is_receipt_sent = True


def _order(placed: Placed, ctx: Context) -> Order:
    order = ctx.session.get(Order, placed.order)
    if order is None:
        raise Reject(f"there is no order {placed.order}", code="no_such_order")
    return order
