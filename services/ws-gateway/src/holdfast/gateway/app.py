"""The gateway put together: routes, and the tasks beside them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from holdfast.gateway.demo.routes import demo_routes
from holdfast.gateway.parts import parts
from holdfast.gateway.protocol.frames import LIMITS, Limits
from holdfast.gateway.redis.source import CONNECT_SECONDS
from holdfast.gateway.topics.hub import LINGER_SECONDS
from holdfast.gateway.transports.cross_origin import CrossOrigin
from holdfast.gateway.transports.routes import live_routes
from holdfast.runtime.health import Check, readiness
from holdfast.runtime.settings import GatewaySettings

__all__ = ["Gateway", "RedisUnavailable", "RevocationsUnknown"]


class RedisUnavailable(Exception):
    """Redis is away, or came back and topics are still being caught up with."""


class RevocationsUnknown(Exception):
    """Redis does not have the revoked tokens; ingest and maintenance copy them into it."""


class Gateway:
    """One gateway process."""

    def __init__(
        self, settings: GatewaySettings, *, limits: Limits = LIMITS, linger_seconds: float = LINGER_SECONDS
    ) -> None:
        self._parts = parts(settings, limits=limits, linger_seconds=linger_seconds)
        self.clients = self._parts.clients
        self._tasks: list[asyncio.Task[None]] = []
        self.checks = {"redis": Check(self._probe)}
        health = [Route("/livez", self._livez), Route("/readyz", self._readyz)]
        self.app = Starlette(
            routes=[
                *live_routes(self._parts.websocket, self._parts.sse),
                *health,
                *demo_routes(settings),
            ],
            middleware=[Middleware(CrossOrigin, origins=self._parts.origins)],
            lifespan=self._lifespan,
        )
        self.app.router.redirect_slashes = False  # its redirects are absolute, and lose a proxy's prefix

    def is_alive(self) -> bool:
        """Whether every task that must run for ever still does."""
        return not any(task.done() for task in self._tasks)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._tasks = [
            asyncio.create_task(self._parts.source.run(self._parts.hub, self._parts.sessions), name="redis source"),
            asyncio.create_task(self._parts.sessions.run(), name="sessions"),
            asyncio.create_task(self._parts.hub.sweep(), name="topic sweep"),
            asyncio.create_task(self._parts.revocations.run(), name="revocations"),
        ]
        # A process that has just started should not refuse its first client for a connect that takes a millisecond.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._parts.source.has_tried.wait()
        yield
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._parts.hub.close()
        # The last ones have just been closed. Once, and briefly: a client that comes back elsewhere does not wait for this.
        await self._parts.sessions.flush()
        await self._parts.source.aclose()

    def _probe(self) -> None:
        """The hub knows how Redis is; asking it again would only add load where it hurts."""
        if self._parts.hub.state != "ok":
            raise RedisUnavailable
        if not self._parts.revocations.is_complete:
            raise RevocationsUnknown

    async def _livez(self, _: Request) -> Response:
        is_alive = self.is_alive()
        return JSONResponse({"status": "ok" if is_alive else "dead"}, status_code=200 if is_alive else 503)

    async def _readyz(self, _: Request) -> Response:
        answer = readiness(self.checks)
        return Response(answer.body(), status_code=answer.http_status, media_type="application/json")
