"""Addresses of the live protocol, and what is said to those who come to them in the wrong way."""

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

__all__ = ["both_spellings", "upgrade_required"]


def both_spellings(kind: Callable[..., BaseRoute], path: str, endpoint: Any, **options: Any) -> list[BaseRoute]:
    """A route with and without a slash at its end. A redirect would lose the prefix that a proxy took off the address."""
    return [kind(path, endpoint, **options), kind(f"{path}/", endpoint, **options)]


async def upgrade_required(_: Request) -> Response:
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
