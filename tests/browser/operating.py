"""What operators have set up beside a history that is lived in, for the pictures of the handbook: through the API."""

import json

from bench.history import Execute

from holdfast.client import Client
from holdfast.domain.declared import DeclaredHandler
from holdfast.domain.limits import Concurrency, Rate

__all__ = ["set_up"]

DECLARED = (
    DeclaredHandler("book-order", 7, "", Concurrency(5, key="/account/id")),
    DeclaredHandler("build-report", 2, "slow", Concurrency(1)),
    DeclaredHandler("charge-order", 7, "", None, Rate(100, per=60)),
    DeclaredHandler("send-mail"),
)

SCHEDULES = {
    "daily-report": {"cron": "0 7 * * mon-fri", "timezone": "Europe/Istanbul", "type": "com.acme.report.due"},
    "month-end": {"cron": "0 18 L * *", "timezone": "Europe/Berlin", "type": "com.acme.books.close"},
    "refresh-prices": {"cron": "*/15 * * * *", "type": "com.acme.prices.stale"},
}

_WALKED = """
UPDATE retention_walk w SET days = r.days, dropped = 140 * r.days, ended_at = now() - interval '12 minutes'
FROM retention r WHERE r.tenant = w.tenant AND r.state = w.state
"""
"""What maintenance says when it has looked through all events by a rule."""


def set_up(execute: Execute, client: Client) -> None:
    """Limits as processors declare them, a pause, schedules, rules of retention, and an erasure that has begun."""
    told = json.dumps([each.told() for each in DECLARED])
    execute(f"UPDATE node SET handlers = '{told}' WHERE service = 'processor'")  # noqa: S608 (values of our own)
    client.pause("handler", "charge-order", note="the bank is away until noon")
    for name, schedule in SCHEDULES.items():
        client.put_schedule(name, schedule)
    client.pause_schedule("refresh-prices")
    client.put_retention("processed", 90)
    client.put_retention("dead", 365)
    execute(_WALKED)
    client.erase("user-42")
