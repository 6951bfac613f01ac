"""What a request for an event stream says, and how one is refused."""

import random
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from holdfast.domain.errors import InvalidPosition, InvalidTopic, LiveWindowUnavailable
from holdfast.domain.position import Position
from holdfast.domain.topics import check_topic
from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Closing
from holdfast.gateway.transports.event_stream import NO_POSITION
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = ["bearer", "positions_of", "problem", "spelled"]

log = logging.get(__name__)

_STATUS = {
    CloseCode.BAD_TOKEN: 401,
    CloseCode.TOKEN_EXPIRED: 401,
    CloseCode.FORBIDDEN: 403,
    CloseCode.REVOKED: 403,
    CloseCode.TOO_MANY_CONNECTIONS: 429,
    CloseCode.UNAVAILABLE: 503,
    CloseCode.PROTOCOL: 400,
}


def bearer(request: Request) -> str:
    """The token in the ``Authorization`` header.

    Raises:
        Closing: there is none.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Closing(CloseCode.BAD_TOKEN, "send a live token as 'Authorization: Bearer …'; POST /v1/tokens has them")
    return token.strip()


def spelled(name: str) -> str:
    """A topic as the gateway names it."""
    try:
        return check_topic(name)
    except InvalidTopic:
        return name  # the stream says what is wrong with it, as a WebSocket would


def positions_of(request: Request, topics: list[str]) -> dict[str, str]:
    """Where the client stands: the header that a browser sends by itself, else what a page put into the address."""
    text = request.headers.get("last-event-id") or request.query_params.get("last_event_id")
    if not text:
        return {}
    parts = text.split(",")
    positions = {topic: part for topic, part in zip(topics, parts, strict=False) if part != NO_POSITION}
    try:
        for part in positions.values():
            Position.parse(part)
    except InvalidPosition as exc:
        raise Closing(CloseCode.PROTOCOL, f"Last-Event-ID: {exc}") from None
    if len(parts) != len(topics):
        raise Closing(CloseCode.PROTOCOL, "Last-Event-ID has a position for each of the topics, in their order")
    return positions


def problem(exc: Closing | LiveWindowUnavailable) -> Response:
    """RFC 9457, as the ingest API answers."""
    if isinstance(exc, LiveWindowUnavailable):
        exc = Closing(CloseCode.UNAVAILABLE, "updates are not available at the moment; connect again later")
    status = _STATUS[exc.code]
    log.info(Log.REQUEST_REJECTED, status=status, code=exc.code.name.lower())
    headers = {"Cache-Control": "no-store"}
    if status in (429, 503):
        headers["Retry-After"] = str(random.randint(1, 5))  # noqa: S311 (jitter)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    reconnect = "Retry-After" in headers or not exc.code.is_terminal
    about = {"status": status, "code": exc.code.name.lower(), "detail": exc.reason, "reconnect": reconnect}
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase} | about
    return JSONResponse(body, status_code=status, headers=headers, media_type="application/problem+json")
