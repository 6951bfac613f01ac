"""A small Celery app after its move: ``docs/coming-from.md`` shows it before and after.

Every weekday the shop asks its supplier for prices, and mails a report once it has them all. The supplier and the mail server
are functions that answer at once. The processor of the demo does not load it: ``HOLDFAST_HANDLERS=demo_shop.prices:handlers``
does, and needs the table ``price``, which the migration of a real package would make.
"""

from datetime import date
from typing import Any

from pydantic import BaseModel
from sqlalchemy import text

from holdfast.processor import Backoff, Context, Handlers, Rate

__all__ = [
    "TABLE", "Day", "PriceWanted", "PricesCollected", "PricesDue", "SupplierAway", "ask_supplier", "collect", "fetch",
    "handlers", "mail", "report", "send",
]  # fmt: skip

TABLE = "CREATE TABLE price (day date, item text, cents integer NOT NULL, PRIMARY KEY (day, item))"

SUPPLIER = {"beans": 1290, "filters": 350, "mug": 1800}
"""What the supplier would answer."""

handlers = Handlers()

handlers.every(
    "0 7 * * mon-fri", tz="Europe/Istanbul", name="daily-prices", type="shop.prices.due", tenant="acme",
    data={"items": sorted(SUPPLIER)},
)  # fmt: skip


class SupplierAway(Exception):
    """The supplier does not answer."""


class PricesDue(BaseModel):
    """The items whose prices are wanted."""

    items: list[str]


class PriceWanted(BaseModel):
    """One item, and the day for which its price is kept."""

    item: str
    day: date


class Day(BaseModel):
    """What the group passes on."""

    day: date


class PricesCollected(BaseModel):
    """How a group ended: Holdfast writes the counts, and adds what was handed to ``emit_group``."""

    processed: int
    dead: int
    discarded: int
    data: Day


@handlers.on("shop.prices.due", name="collect-prices")
def collect(due: PricesDue, ctx: Context) -> None:
    """Ask for each price, and report when all have ended."""
    day = (ctx.event.time or ctx.event.received_at).date().isoformat()
    members = [{"type": "shop.price.wanted", "data": {"item": item, "day": day}} for item in due.items]
    ctx.emit_group(members, then=("shop.prices.collected", {"day": day}))


@handlers.on(
    "shop.price.wanted",
    name="fetch-price",
    retry=Backoff(first=2, factor=2, cap=60, attempts=6),
    rate=Rate(60, per=60),
)
def fetch(wanted: PriceWanted, ctx: Context) -> None:
    """Keep one price. The row and the event's ``processed`` are one commit."""
    cents = ask_supplier(wanted.item)  # before ctx.session: no transaction is open meanwhile
    ctx.session.execute(
        text("INSERT INTO price VALUES (:day, :item, :cents) ON CONFLICT (day, item) DO UPDATE SET cents = :cents"),
        {"day": wanted.day, "item": wanted.item, "cents": cents},
    )


@handlers.on("shop.prices.collected", name="report-prices")
def report(collected: PricesCollected, ctx: Context) -> None:
    """Write the report, and let another event send it: a mail cannot be rolled back."""
    found = text("SELECT item, cents FROM price WHERE day = :day ORDER BY item")
    lines = [f"{item}: {cents / 100:.2f}" for item, cents in ctx.session.execute(found, {"day": collected.data.day})]
    if missing := collected.dead + collected.discarded:
        lines.append(f"{missing} without a price")
    ctx.emit("shop.mail.requested", {"to": "buyer@example.com", "text": "\n".join(lines)})


@handlers.on(
    "shop.mail.requested",
    name="send-mail",
    transactional=False,
    retry=Backoff(first=1, factor=2, cap=600, attempts=4),
)
def mail(letter: dict[str, Any], ctx: Context) -> str:
    """Send it. The key lets the mail server drop a second copy."""
    return send(letter["to"], letter["text"], message_id=ctx.idempotency_key)


def ask_supplier(item: str) -> int:
    """The price of an item in cents. A request to the supplier would stand here."""
    try:
        return SUPPLIER[item]
    except KeyError:
        raise SupplierAway(item) from None


def send(to: str, body: str, *, message_id: str) -> str:
    """The id under which the mail was taken. A request to a mail server would stand here."""
    if not to or not body:
        raise ValueError("a mail has a receiver and a text")
    return message_id
