"""``/demo/``: a page that shows live updates, for development only (``HOLDFAST_GATEWAY_DEMO=true``).

It asks for a live token and shows what the token grants. The files are those of ``demo_page/``; ``holdfast-live.js``,
``follow.js`` and ``event-stream.js`` are the browser client of ``libs/client-js``, and a test holds the copies together.
"""

from collections.abc import Awaitable, Callable
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

__all__ = ["DEMO_PATH", "demo_routes"]

DEMO_PATH = "/demo/"

_MEDIA_TYPES = {
    "index.html": "text/html",
    "demo.css": "text/css",
    "demo.js": "text/javascript",
    "holdfast-live.js": "text/javascript",
    "follow.js": "text/javascript",
    "event-stream.js": "text/javascript",
    "favicon.svg": "image/svg+xml",
}

_HEADERS = {
    # Nothing inline, nothing from elsewhere: what a page with somebody's token in it should keep to.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def demo_routes() -> list[BaseRoute]:
    """The page and its files, read once."""
    folder = files(__package__) / "demo_page"
    pages: list[BaseRoute] = [
        Route("/" if name == "index.html" else f"/{name}", _serving((folder / name).read_bytes(), media_type))
        for name, media_type in _MEDIA_TYPES.items()
    ]
    return [Route(DEMO_PATH.rstrip("/"), _to_the_page), Mount(DEMO_PATH.rstrip("/"), routes=pages)]


def _serving(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def serve(_: Request) -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return serve


async def _to_the_page(_: Request) -> Response:
    return RedirectResponse(DEMO_PATH)
