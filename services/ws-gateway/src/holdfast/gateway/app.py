"""The gateway put together: routes, and the tasks beside them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute

from holdfast.gateway.clients.clients import Clients
from holdfast.gateway.clients.gate import Gate
from holdfast.gateway.clients.origins import Origins
from holdfast.gateway.clients.session import Sessions
from holdfast.gateway.clients.tokens import TokenVerifier
from holdfast.gateway.demo import demo_routes
from holdfast.gateway.protocol.frames import LIMITS, Limits
from holdfast.gateway.redis.revocation import RevocationWatch
from holdfast.gateway.redis.source import CONNECT_SECONDS, Source
from holdfast.gateway.topics.hub import LINGER_SECONDS, Hub
from holdfast.gateway.transports.cross_origin import CrossOrigin
from holdfast.gateway.transports.routes import both_spellings, upgrade_required
from holdfast.gateway.transports.sse import SseEndpoint
from holdfast.gateway.transports.ticket import Tickets
from holdfast.gateway.transports.websocket import LiveEndpoint
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
        window_seconds = settings.live_window_seconds
        self.clients = Clients()
        self._source = Source(settings.redis_url.get_secret_value(), window_seconds=window_seconds)
        self._hub = Hub(
            self._source,
            limits,
            window_seconds=window_seconds,
            on_state=self.clients.announce,
            linger_seconds=linger_seconds,
        )
        self._revocations = RevocationWatch(self._source.client)
        self._sessions = Sessions(
            self._source.client,
            node=self._source.node,
            limits=limits,
            connections_per_subject=settings.connections_per_subject,
        )
        gate = Gate(
            hub=self._hub,
            clients=self.clients,
            sessions=self._sessions,
            verifier=TokenVerifier(settings.live_token_secret.get_secret_value(), settings.live_token_keys),
            limits=limits,
            node=settings.node_name,
            origins=Origins(settings.allowed_origins),
        )
        live, sse = LiveEndpoint(gate), SseEndpoint(gate, Tickets(self._source.client))
        self._tasks: list[asyncio.Task[None]] = []
        self.checks = {"redis": Check(self._probe)}
        self.app = Starlette(
            routes=[
                *both_spellings(WebSocketRoute, "/v1/live", live.serve),
                *both_spellings(Route, "/v1/live", upgrade_required),
                *both_spellings(Route, "/v1/live/sse", sse.stream),
                *both_spellings(Route, "/v1/live/tickets", sse.ticket, methods=["POST"]),
                Route("/livez", self._livez),
                Route("/readyz", self._readyz),
                *(demo_routes() if settings.gateway_demo else []),
            ],
            middleware=[Middleware(CrossOrigin, origins=gate.origins)],
            lifespan=self._lifespan,
        )
        self.app.router.redirect_slashes = False  # its redirects are absolute, and lose a proxy's prefix

    def is_alive(self) -> bool:
        """Whether every task that must run for ever still does."""
        return not any(task.done() for task in self._tasks)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._tasks = [
            asyncio.create_task(self._source.run(self._hub, self._sessions), name="redis source"),
            asyncio.create_task(self._sessions.run(), name="sessions"),
            asyncio.create_task(self._hub.sweep(), name="topic sweep"),
            asyncio.create_task(self._revocations.run(), name="revocations"),
        ]
        # A process that has just started should not refuse its first client for a connect that takes a millisecond.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._source.has_tried.wait()
        yield
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._hub.close()
        # The last ones have just been closed. Once, and briefly: whoever comes back elsewhere does not wait for this.
        await self._sessions.flush()
        await self._source.aclose()

    def _probe(self) -> None:
        """The hub knows how Redis is; asking it again would only add load where it hurts."""
        if self._hub.state != "ok":
            raise RedisUnavailable
        if not self._revocations.is_complete:
            raise RevocationsUnknown

    async def _livez(self, _: Request) -> Response:
        is_alive = self.is_alive()
        return JSONResponse({"status": "ok" if is_alive else "dead"}, status_code=200 if is_alive else 503)

    async def _readyz(self, _: Request) -> Response:
        answer = readiness(self.checks)
        return Response(answer.body(), status_code=answer.http_status, media_type="application/json")
