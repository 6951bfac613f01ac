"""``/v1/live`` over WebSocket: from the handshake to the goodbye."""

import asyncio
import random

from starlette.responses import JSONResponse
from starlette.websockets import WebSocket

from holdfast.domain.errors import LiveWindowUnavailable
from holdfast.gateway.clients.connection import Connection
from holdfast.gateway.clients.gate import Gate
from holdfast.gateway.clients.session import Session
from holdfast.gateway.clients.speaker import Speaker
from holdfast.gateway.clients.timers import Heart
from holdfast.gateway.clients.tokens import allowed_topics
from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Closing, parse_client_frame
from holdfast.gateway.protocol.frames import Hello
from holdfast.gateway.transports.wire import EXTENSION, Wire
from holdfast.messaging.contracts import LiveTokenV1
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = ["LiveEndpoint"]

log = logging.get(__name__)


class _Gone(Exception):
    """The WebSocket is closed, by either side."""


class LiveEndpoint:
    """Serves WebSocket clients."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._limits = gate.limits

    async def serve(self, websocket: WebSocket) -> None:
        """A client up to its ``hello``. From then on its WebSocket tells a :class:`Speaker`, and this task ends."""
        if not self._gate.is_open:
            await websocket.send_denial_response(_unavailable())
            return
        # Accepted before anything is refused: a close before that is a bare HTTP 403, and browsers see no close code.
        await websocket.accept()
        wire: Wire = websocket.scope["extensions"][EXTENSION]
        connection = self._gate.clients.connection(wire, self._limits)
        self._gate.clients.enter(connection)
        wire.on_room(connection.flush)
        try:
            await self._greet(websocket, connection, wire)
        except _Gone:
            self._gate.clients.leave(connection)
        except Closing as closing:
            connection.close(closing.code, closing.reason)
        except Exception:
            log.exception(Log.CLIENT_FAILED)
            connection.close(CloseCode.INTERNAL, "internal error; connect again")
        connection.flush()  # a refusal goes out before this returns: uvicorn takes a request that has ended for closed

    async def _greet(self, websocket: WebSocket, connection: Connection, wire: Wire) -> None:
        if not self._gate.origins.admit(websocket.headers):
            raise Closing(CloseCode.FORBIDDEN, "this origin may not connect; see HOLDFAST_ALLOWED_ORIGINS")
        hello = await self._receive_hello(websocket)
        claims = self._gate.verifier.verify(hello.token)
        session = await self._open_session(hello, claims, connection)
        connection.send(self._gate.welcome(session))
        conversation = self._gate.conversation(connection, session, Heart(connection, self._limits))
        speaker = Speaker(self._gate, connection, session, conversation)
        speaker.act(lambda: conversation.start(hello.topics, hello.positions))
        wire.hand_over(speaker)

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
            if self._gate.hub.is_reachable:
                return await self._gate.sessions.open(
                    claims, connection, asked=hello.session, topics=topics, attempt=hello.attempt
                )
        except LiveWindowUnavailable:
            pass  # it has just gone away, which the hub has yet to notice
        raise Closing(CloseCode.UNAVAILABLE, "updates are not available at the moment; connect again later")


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
