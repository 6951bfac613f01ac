"""``/v1/live`` over WebSocket: from the handshake to the goodbye."""

import asyncio
import random
from collections.abc import Sequence
from urllib.parse import urlsplit

from redis.exceptions import RedisError
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.websockets import WebSocket

from holdfast.gateway.clients import Clients
from holdfast.gateway.close_codes import CloseCode
from holdfast.gateway.codec import Closing, parse_client_frame
from holdfast.gateway.connection import Connection
from holdfast.gateway.conversation import Conversation
from holdfast.gateway.hub import Hub
from holdfast.gateway.protocol import Hello, Limits, Welcome, WelcomeLimits
from holdfast.gateway.session import Session, Sessions
from holdfast.gateway.timers import Allowance, Heart
from holdfast.gateway.tokens import TokenVerifier, allowed_topics
from holdfast.gateway.wire import EXTENSION
from holdfast.messaging.contracts import LiveTokenV1
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = ["LiveEndpoint", "Origins", "welcome"]

log = logging.get(__name__)


class _Gone(Exception):
    """The WebSocket is closed, by either side."""


class Origins:
    """Pages that may connect: those of this host, and of the allowed origins."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = frozenset(origin.rstrip("/").lower() for origin in allowed)

    def admit(self, headers: Headers) -> bool:
        """Browsers name the page's origin and let any page connect anywhere; what is no browser names none."""
        origin = headers.get("origin")
        if origin is None:
            return True
        host = headers.get("host", "").lower()
        return origin.lower() in self._allowed or urlsplit(origin.lower()).netloc == host


class LiveEndpoint:
    """Serves WebSocket clients."""

    def __init__(
        self,
        hub: Hub,
        clients: Clients,
        sessions: Sessions,
        verifier: TokenVerifier,
        *,
        limits: Limits,
        node: str,
        origins: Origins,
    ) -> None:
        self._hub = hub
        self._clients = clients
        self._sessions = sessions
        self._verifier = verifier
        self._limits = limits
        self._node = node
        self._origins = origins

    async def serve(self, websocket: WebSocket) -> None:
        """One client, start to end."""
        if self._clients.is_draining or self._hub.state != "ok":
            await websocket.send_denial_response(_unavailable())
            return
        # Accepted before anything is refused: a close before that is a bare HTTP 403, and browsers see no close code.
        await websocket.accept()
        connection = Connection(websocket.scope["extensions"][EXTENSION], self._limits)
        async with self._clients.writing(connection):
            await self._converse(websocket, connection)

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
        if not self._origins.admit(websocket.headers):
            raise Closing(CloseCode.FORBIDDEN, "this origin may not connect; see HOLDFAST_ALLOWED_ORIGINS")
        hello = await self._receive_hello(websocket)
        claims = self._verifier.verify(hello.token)
        session = await self._open_session(hello, claims, connection)
        try:
            connection.send(welcome(session.id, limits=self._limits, node=self._node))
            conversation = Conversation(
                connection,
                session,
                hub=self._hub,
                sessions=self._sessions,
                verifier=self._verifier,
                limits=self._limits,
                heart=Heart(connection, self._limits),
            )
            async with conversation.running(hello.topics, hello.positions):
                await self._read(websocket, conversation)
        finally:
            self._sessions.close(session)

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

    async def _open_session(self, hello: Hello, claims: LiveTokenV1, connection: Connection) -> Session:
        topics = allowed_topics(hello.topics, claims)[: self._limits.topics]
        try:
            if self._hub.state == "ok":
                return await self._sessions.open(claims, connection, asked=hello.session, topics=topics)
        except RedisError:
            pass  # it has just gone away, which the hub has yet to notice
        raise Closing(CloseCode.UNAVAILABLE, "updates are not available at the moment; connect again later")

    async def _read(self, websocket: WebSocket, conversation: Conversation) -> None:
        allowance = Allowance(self._limits.commands_per_s)
        while True:
            text = await _receive(websocket)
            if not allowance.take():
                raise Closing(CloseCode.RATE, f"more than {self._limits.commands_per_s} frames a second")
            conversation.handle(parse_client_frame(text, limit_bytes=self._limits.frame_bytes))


def welcome(session: str, *, limits: Limits, node: str) -> Welcome:
    """The frame that a client gets first."""
    return Welcome(
        session=session,
        ttl_s=limits.session_ttl_s,
        ping_s=limits.ping_s,
        node=node,
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


def _unavailable() -> JSONResponse:
    retry_after = str(random.randint(1, 5))  # noqa: S311 (jitter)
    return JSONResponse({"status": "unavailable"}, status_code=503, headers={"Retry-After": retry_after})
