"""``/demo/``: the files of the page. ``holdfast-live.js``, ``follow.js`` and ``event-stream.js`` are the browser client of
``libs/client-js``, and a test holds the copies together."""

from collections.abc import Awaitable, Callable
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

__all__ = ["DEMO_PATH", "page_routes"]

DEMO_PATH = "/demo/"

_MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}

_FILES = (
    "index.html", "favicon.svg", "demo.css", "demo.js", "journal.js", "ledger.js", "orders.js", "shop.js", "words.js",
    "holdfast-live.js", "follow.js", "event-stream.js",
)  # fmt: skip

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


def page_routes(shop: list[BaseRoute]) -> list[BaseRoute]:
    """The page and its files, read once, with the routes of the shop beside them."""
    folder = files("holdfast.gateway") / "demo_page"
    pages: list[BaseRoute] = [
        Route("/" if name == "index.html" else f"/{name}", _serving((folder / name).read_bytes(), _media_type(name)))
        for name in _FILES
    ]
    return [Route(DEMO_PATH.rstrip("/"), _to_the_page), Mount(DEMO_PATH.rstrip("/"), routes=[*pages, *shop])]


def _media_type(name: str) -> str:
    return _MEDIA_TYPES[name.rpartition(".")[2]]


def _serving(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def serve(_: Request) -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return serve


async def _to_the_page(_: Request) -> Response:
    return RedirectResponse(DEMO_PATH)
