"""``/v1/live`` over WebSocket: from the handshake to the goodbye."""

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.websockets import WebSocket

from holdfast.gateway.close_codes import CloseCode
from holdfast.gateway.codec import Closing, parse_client_frame
from holdfast.gateway.connection import Connection
from holdfast.gateway.conversation import Conversation
from holdfast.gateway.hub import Hub, State
from holdfast.gateway.protocol import Hello, Limits, Reconnect, Status, Welcome, WelcomeLimits
from holdfast.gateway.timers import Allowance
from holdfast.gateway.tokens import TokenVerifier
from holdfast.gateway.wire import EXTENSION
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log, Metrics

__all__ = ["LiveEndpoint"]

log = logging.get(__name__)

DRAIN_SECONDS = 5.0
"""Closes are spread over this long at most: the other gateways take over a herd in pieces."""
DRAIN_SECONDS_PER_CONNECTION = 0.002
DRAIN_BATCHES = 50
RECONNECT_JITTER_MS = 1000
PARTING_SECONDS = 6.0
"""For the last frames; above ``connection.PARTING_SECONDS``, after which a client that does not read is cut off."""


class _Gone(Exception):
    """The WebSocket is closed, by either side."""


class LiveEndpoint:
    """Serves clients, knows them all, and lets them go in good order."""

    def __init__(
        self, hub: Hub, verifier: TokenVerifier, *, limits: Limits, node: str, allowed_origins: Sequence[str]
    ) -> None:
        self._hub = hub
        self._verifier = verifier
        self._limits = limits
        self._node = node
        self._allowed_origins = frozenset(origin.rstrip("/").lower() for origin in allowed_origins)
        self._connections: dict[Connection, asyncio.Task[None]] = {}  # with their writers
        self._is_draining = False

    def announce(self, state: State) -> None:
        """Tell every client that updates are late, or that all have been caught up with."""
        for connection in self._connections:
            connection.send(Status(state=state))

    async def serve(self, websocket: WebSocket) -> None:
        """One client, start to end."""
        if self._is_draining or self._hub.state != "ok":
            await websocket.send_denial_response(_unavailable())
            return
        # Accepted before anything is refused: a close before that is a bare HTTP 403, and browsers see no close code.
        await websocket.accept()
        connection = Connection(websocket.scope["extensions"][EXTENSION], self._limits)
        writer = asyncio.create_task(connection.run(), name="live writer")
        self._connections[connection] = writer
        Metrics.connections.inc()
        try:
            await self._converse(websocket, connection)
        finally:
            if connection.close_code is None:
                writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer
            del self._connections[connection]
            Metrics.connections.dec()
            Metrics.closed.labels(code=str(int(connection.close_code or 0) or "client")).inc()

    async def drain(self) -> None:
        """Send everybody elsewhere: announce it, then close in batches, then wait for the last frames to leave."""
        self._is_draining = True
        connections = list(self._connections)
        seconds = min(DRAIN_SECONDS, len(connections) * DRAIN_SECONDS_PER_CONNECTION)
        for connection in connections:
            connection.send(Reconnect(after_ms=random.randint(0, RECONNECT_JITTER_MS)))  # noqa: S311 (jitter)
        size = max(1, -(-len(connections) // DRAIN_BATCHES))
        for start in range(0, len(connections), size):
            for connection in connections[start : start + size]:
                connection.close(CloseCode.DRAIN, "this gateway shuts down; connect again")
            await asyncio.sleep(seconds / DRAIN_BATCHES)
        if self._connections:
            await asyncio.wait(list(self._connections.values()), timeout=PARTING_SECONDS)

    async def _converse(self, websocket: WebSocket, connection: Connection) -> None:
        """Read frames until the connection ends; whatever goes wrong becomes its close code."""
        try:
            await self._greet_and_read(websocket, connection)
        except _Gone:
            return
        except Closing as closing:
            connection.close(closing.code, closing.reason)
        except Exception:
            log.exception(Log.CLIENT_FAILED)
            connection.close(CloseCode.INTERNAL, "internal error; connect again")

    async def _greet_and_read(self, websocket: WebSocket, connection: Connection) -> None:
        if not self._is_origin_allowed(websocket):
            raise Closing(CloseCode.FORBIDDEN, "this origin may not connect; see HOLDFAST_ALLOWED_ORIGINS")
        hello = await self._receive_hello(websocket)
        claims = self._verifier.verify(hello.token)
        if self._hub.state != "ok":
            raise Closing(CloseCode.UNAVAILABLE, "updates are not available at the moment; connect again later")
        session = secrets.token_urlsafe(16)
        connection.send(self._welcome(session))
        conversation = Conversation(connection, claims, hub=self._hub, verifier=self._verifier, limits=self._limits)
        started_at = time.monotonic()
        log.info(Log.CONNECTED, tenant=claims.tenant, session=session)
        joins = asyncio.create_task(conversation.run_joins(), name="live joins")
        joins.add_done_callback(lambda task: _close_on_failure(task, connection))
        try:
            conversation.start(hello)
            await self._read(websocket, conversation)
        finally:
            joins.cancel()
            conversation.end()
            log.info(
                Log.DISCONNECTED,
                tenant=claims.tenant,
                session=session,
                code=connection.close_code,
                seconds=round(time.monotonic() - started_at, 3),
            )

    async def _receive_hello(self, websocket: WebSocket) -> Hello:
        try:
            async with asyncio.timeout(self._limits.hello_s):
                text = await _receive(websocket)
        except TimeoutError:
            raise Closing(CloseCode.NO_HELLO, f"no hello within {self._limits.hello_s:g} s") from None
        frame = parse_client_frame(text, limit_bytes=self._limits.frame_bytes)
        if not isinstance(frame, Hello):
            raise Closing(CloseCode.PROTOCOL, "the first frame is a hello")
        return frame

    async def _read(self, websocket: WebSocket, conversation: Conversation) -> None:
        allowance = Allowance(self._limits.commands_per_s)
        while True:
            text = await _receive(websocket)
            if not allowance.take():
                raise Closing(CloseCode.RATE, f"more than {self._limits.commands_per_s} frames a second")
            conversation.handle(parse_client_frame(text, limit_bytes=self._limits.frame_bytes))

    def _is_origin_allowed(self, websocket: WebSocket) -> bool:
        """Browsers name the page's origin and let any page connect anywhere; what is no browser names none."""
        origin = websocket.headers.get("origin")
        if origin is None:
            return True
        host = websocket.headers.get("host", "").lower()
        return origin.lower() in self._allowed_origins or urlsplit(origin.lower()).netloc == host

    def _welcome(self, session: str) -> Welcome:
        limits = self._limits
        return Welcome(
            session=session,
            ttl_s=limits.session_ttl_s,
            ping_s=limits.ping_s,
            node=self._node,
            limits=WelcomeLimits(
                topics=limits.topics,
                frame_bytes=limits.frame_bytes,
                commands_per_s=limits.commands_per_s,
                replay=limits.replay,
            ),
        )


async def _receive(websocket: WebSocket) -> str | None:
    """The next frame's text, ``None`` for a binary one."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise _Gone
    text: str | None = message.get("text")
    return text


def _close_on_failure(task: asyncio.Task[None], connection: Connection) -> None:
    """A bug in joining must not leave a client waiting for a ``subscribed`` that never comes."""
    if task.cancelled():
        return
    log.error(Log.CLIENT_FAILED, exc_info=task.exception())
    connection.close(CloseCode.INTERNAL, "internal error; connect again")


def _unavailable() -> JSONResponse:
    retry_after = str(random.randint(1, 5))  # noqa: S311 (jitter)
    return JSONResponse({"status": "unavailable"}, status_code=503, headers={"Retry-After": retry_after})
