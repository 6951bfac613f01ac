"""CORS for the pages that may connect, and for no others."""

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast.gateway.clients.origins import Origins

__all__ = ["CrossOrigin"]


class CrossOrigin:
    """Starlette's CORS, asked only when :class:`Origins` admits the page: who may connect is decided in one place."""

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        self._app = app
        self._origins = origins
        self._sharing = CORSMiddleware(
            app,
            allow_origin_regex=".*",
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Last-Event-ID"],
            expose_headers=["Retry-After"],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        is_shared = scope["type"] == "http" and self._origins.admit(Headers(scope=scope))
        await (self._sharing if is_shared else self._app)(scope, receive, send)
