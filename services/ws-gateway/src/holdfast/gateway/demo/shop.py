"""The shop's counter: what the page may ask for, and what becomes of it at ingest.

The page chooses one of a few goods by name; all the rest of an order is written here, so that nothing from a stranger
becomes an event. What is asked about, replayed or watched is the visitor's own.
"""

import json
import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from holdfast.gateway.demo.allowance import Allowance
from holdfast.gateway.demo.answers import Refusal, answer
from holdfast.gateway.demo.ingest import Ingest
from holdfast.gateway.demo.visitors import Visitor, refuse_strangers

__all__ = ["GOODS", "Shop"]

SOURCE = "/demo/shop"
TOKEN_SECONDS = 300
MOST_BODY_BYTES = 256
MOST_ORDERS = 25
"""Shown of a visitor's."""

GOODS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "beans": ("shop.order.placed", {"seconds": 4}),
    "machine": ("shop.order.placed", {"seconds": 25}),
    "giftcard": ("shop.giftcard.bought", {"seconds": 1}),
    "unicorn": ("shop.unicorn.ordered", {"seconds": 1}),
}
"""What there is to order: the event's type, and its data beside the order's number."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)

Serve = Callable[[Request], Awaitable[Response]]


class Shop:
    """Routes under ``/demo/``: ``session``, ``orders`` and ``orders/<event id>/replay``.

    Args:
        lease_seconds: the processors', for the page to tell.
    """

    def __init__(
        self,
        ingest: Ingest,
        *,
        lease_seconds: float,
        orders: Allowance | None = None,
        readings: Allowance | None = None,
    ) -> None:
        self._ingest = ingest
        self._lease_seconds = lease_seconds
        self._orders = orders or Allowance(per_second=2, burst=20)
        self._readings = readings or Allowance(per_second=10, burst=50)

    def routes(self) -> list[BaseRoute]:
        """To be mounted beside the page."""
        return [
            Route("/session", _answering(self._open_session), methods=["POST"]),
            Route("/orders", _answering(self._list), methods=["GET"]),
            Route("/orders", _answering(self._place), methods=["POST"]),
            Route("/orders/{event_id}/replay", _answering(self._replay), methods=["POST"]),
        ]

    async def _open_session(self, request: Request) -> Response:
        """A live token for the visitor's orders alone."""
        refuse_strangers(request)
        self._readings.take()
        visitor = Visitor.known_or_new(request)
        topic = f"audience:{visitor.audience}"
        wanted = {"topics": [topic], "sub": visitor.audience, "ttl_seconds": TOKEN_SECONDS}
        made = await self._ingest.ask("POST", "/v1/tokens", wanted)
        response = answer({"token": made["token"], "topic": topic, "lease_seconds": self._lease_seconds})
        visitor.remember(response)
        return response

    async def _list(self, request: Request) -> Response:
        """The visitor's last orders, newest first, as updates show them."""
        visitor = Visitor.of(request)
        self._readings.take()
        path = f"/v1/events?audience={visitor.audience}&limit={MOST_ORDERS}"
        return answer({"items": [_order(item) for item in (await self._ingest.ask("GET", path))["items"]]})

    async def _place(self, request: Request) -> Response:
        refuse_strangers(request)
        visitor = Visitor.of(request)
        goods = await _wanted(request)
        self._orders.take()
        type_, data = GOODS[goods]
        number = secrets.token_hex(3).upper()
        event = {
            "specversion": "1.0", "id": secrets.token_hex(16), "source": SOURCE, "type": type_,
            "subject": f"{goods}/{number}", "audience": visitor.audience,
            "data": {"order": number, "item": goods} | data,
        }  # fmt: skip
        accepted = await self._ingest.ask("POST", "/v1/events", event, content_type="application/cloudevents+json")
        return answer(
            {"id": accepted["event_id"], "goods": goods, "number": number, "state": accepted["state"],
             "version": accepted["version"]}, 202,
        )  # fmt: skip

    async def _replay(self, request: Request) -> Response:
        refuse_strangers(request)
        visitor, event_id = Visitor.of(request), request.path_params["event_id"]
        self._orders.take()
        if _UUID.fullmatch(event_id) is None or not await self._is_own(event_id, visitor):
            raise _missing()
        replayed = await self._ingest.ask("POST", f"/v1/events/{event_id}/replay")
        return answer({"id": event_id, "state": replayed["state"], "version": replayed["version"]}, 202)

    async def _is_own(self, event_id: str, visitor: Visitor) -> bool:
        """Whether it is an order that this visitor has placed here: the key could replay any event of its tenant."""
        event = (await self._ingest.ask("GET", f"/v1/events/{event_id}"))["event"]
        return (event.get("audience"), event.get("source")) == (visitor.audience, SOURCE)


def _answering(serve: Serve) -> Serve:
    async def answer_or_refuse(request: Request) -> Response:
        try:
            return await serve(request)
        except Refusal as exc:
            return exc.response()

    return answer_or_refuse


async def _wanted(request: Request) -> str:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BODY_BYTES:
            raise Refusal(413, "too_large", f"an order has at most {MOST_BODY_BYTES} bytes")
    try:
        goods = json.loads(body)["goods"]
        if isinstance(goods, str) and goods in GOODS:
            return goods
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise Refusal(400, "invalid_order", f'order like {{"goods": "beans"}}; there are {", ".join(GOODS)}')


def _order(item: dict[str, Any]) -> dict[str, Any]:
    error = item["last_error"]
    goods, _, number = item["event"].get("subject", "").partition("/")
    return {
        "id": item["event_id"], "goods": goods, "number": number, "state": item["state"], "version": item["version"],
        "attempt": item["attempt"], "at": item["finished_at"] or item["received_at"],
        "detail": {"error": {"type": error["type"], "message": error["message"]}} if error else {},
    }  # fmt: skip


def _missing() -> Refusal:
    return Refusal(404, "not_found", "you have no such order")
