"""``/v1/live/sse`` and ``/v1/live/tickets``: the same updates as Server-Sent Events, for clients without WebSocket."""

from typing import cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from holdfast.domain.errors import LiveWindowUnavailable
from holdfast.gateway.clients.connection import Connection
from holdfast.gateway.clients.gate import Gate
from holdfast.gateway.clients.session import Session
from holdfast.gateway.clients.timers import Pulse
from holdfast.gateway.clients.tokens import allowed_topics
from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Closing
from holdfast.gateway.redis.tickets import TICKET_SECONDS, Tickets
from holdfast.gateway.transports.event_stream import EventStream
from holdfast.gateway.transports.stream_request import bearer, positions_of, problem, spelled
from holdfast.gateway.transports.stream_topics import named_topics
from holdfast.gateway.transports.wire import EXTENSION, HttpWire
from holdfast.messaging.contracts import LiveTokenV1

__all__ = ["SseEndpoint"]


class SseEndpoint:
    """Serves ``EventSource`` and curl."""

    def __init__(self, gate: Gate, tickets: Tickets) -> None:
        self.gate = gate
        self._tickets = tickets

    async def ticket(self, request: Request) -> Response:
        """``POST /v1/live/tickets``: a ticket for the token in the ``Authorization`` header."""
        try:
            self._admit(request)
            ticket = await self._tickets.issue(self.gate.verifier.verify(bearer(request)))
        except (Closing, LiveWindowUnavailable) as exc:
            return problem(exc)
        body = {"ticket": ticket, "expires_in_seconds": TICKET_SECONDS}
        return JSONResponse(body, status_code=201, headers={"Cache-Control": "no-store"})

    async def stream(self, request: Request) -> Response:
        """``GET /v1/live/sse?topics=…``: updates until one side ends it."""
        try:
            self._admit(request)
            topics = self._topics(request)
            positions = positions_of(request, topics)
            claims = await self._claims(request)
        except (Closing, LiveWindowUnavailable) as exc:
            return problem(exc)
        if request.method == "HEAD":  # which Starlette lets in beside GET: it has no body, so no stream would ever end
            return Response(media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        return _Stream(self.gate, claims, topics, positions)

    def _admit(self, request: Request) -> None:
        if not self.gate.origins.admit(request.headers):
            raise Closing(CloseCode.FORBIDDEN, "this origin may not connect; see HOLDFAST_ALLOWED_ORIGINS")
        if "token" in request.query_params or "access_token" in request.query_params:
            raise Closing(CloseCode.PROTOCOL, "a token never stands in an address: use Authorization, or a ticket")
        if not self.gate.is_open:
            raise Closing(CloseCode.UNAVAILABLE, "updates are not available at the moment; connect again later")

    def _topics(self, request: Request) -> list[str]:
        topics = list(dict.fromkeys(spelled(name) for name in named_topics(request.scope["query_string"])))
        if not 0 < len(topics) <= self.gate.limits.sse_topics:
            raise Closing(
                CloseCode.PROTOCOL,
                f"name 1 to {self.gate.limits.sse_topics} topics: ?topics=audience:a,tenant:b, or ?topic= for each of them",
            )
        return topics

    async def _claims(self, request: Request) -> LiveTokenV1:
        ticket = request.query_params.get("ticket")
        if ticket is None:
            return self.gate.verifier.verify(bearer(request))
        claims = await self._tickets.redeem(ticket)
        if claims is None:
            raise Closing(
                CloseCode.TOKEN_EXPIRED, "the ticket was used or has expired; POST /v1/live/tickets for another"
            )
        return claims


class _Stream(Response):
    """The response: opened once the session is, and open until the client or the gateway ends it."""

    def __init__(self, gate: Gate, claims: LiveTokenV1, topics: list[str], positions: dict[str, str]) -> None:
        super().__init__()
        self._gate = gate
        self._claims = claims
        self._topics = topics
        self._positions = positions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gate, wire = self._gate, cast("HttpWire", scope["extensions"][EXTENSION])
        outlet = EventStream(send, wire, self._topics, self._positions)
        connection = gate.clients.connection(outlet, gate.limits)
        names = allowed_topics(self._topics, self._claims)
        try:
            session = await gate.sessions.open(self._claims, connection, asked=None, topics=names)
        except (Closing, LiveWindowUnavailable) as exc:
            await problem(exc)(scope, receive, send)
            return
        try:
            await outlet.start()
            wire.on_room(connection.flush)
            gate.clients.enter(connection)
            await self._converse(connection, session, receive)
        finally:
            gate.clients.leave(connection)
            gate.sessions.close(session)

    async def _converse(self, connection: Connection, session: Session, receive: Receive) -> None:
        connection.send(self._gate.welcome(session))
        conversation = self._gate.conversation(connection, session, Pulse(connection, self._gate.limits))
        try:
            conversation.start(self._topics, self._positions)
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            conversation.stop()
