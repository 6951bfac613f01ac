"""Addresses of the live protocol, and what is said to those who come to them in the wrong way."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from holdfast.gateway.transports.sse import SseEndpoint
from holdfast.gateway.transports.websocket import LiveEndpoint

__all__ = ["live_routes"]


def live_routes(websocket: LiveEndpoint, sse: SseEndpoint) -> list[BaseRoute]:
    """Every address with and without a slash at its end: a redirect would lose the prefix that a proxy took off."""
    return [
        route
        for slash in ("", "/")
        for route in (
            WebSocketRoute(f"/v1/live{slash}", websocket.serve),
            Route(f"/v1/live{slash}", _upgrade_required),
            Route(f"/v1/live/sse{slash}", sse.stream),
            Route(f"/v1/live/tickets{slash}", sse.ticket, methods=["POST"]),
        )
    ]


async def _upgrade_required(_: Request) -> Response:
    """HTTP 426 (RFC 9110, 15.5.22): a request for the WebSocket that is none, most often because a proxy made it one."""
    detail = (
        "this address speaks WebSocket; a proxy in front of it has to pass on HTTP/1.1 with the headers"
        " 'Connection: Upgrade' and 'Upgrade: websocket'. Server-Sent Events are at /v1/live/sse"
    )
    body = {
        "type": "about:blank",
        "title": "Upgrade Required",
        "status": 426,
        "code": "upgrade_required",
        "detail": detail,
    }
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Cache-Control": "no-store"}
    return JSONResponse(body, status_code=426, headers=headers, media_type="application/problem+json")
