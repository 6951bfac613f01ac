"""What a client says after its ``hello``, and what comes of it."""

import time
from collections.abc import Iterable, Mapping, Sequence

from holdfast.domain.errors import InvalidTopic
from holdfast.domain.position import Position
from holdfast.domain.topics import check_topic
from holdfast.gateway.clients.connection import Connection
from holdfast.gateway.clients.joins import Joins
from holdfast.gateway.clients.session import Session, Sessions
from holdfast.gateway.clients.timers import LifeSign, TokenClock
from holdfast.gateway.clients.tokens import TokenVerifier, is_allowed
from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Closing
from holdfast.gateway.protocol.frames import (
    ClientFrame,
    ClientPing,
    Error,
    Limits,
    Pong,
    RequestId,
    ServerPong,
    Subscribe,
    Token,
    TopicSince,
    Unsubscribe,
)
from holdfast.gateway.topics.hub import Hub
from holdfast.gateway.topics.topic import Subscription
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = ["Conversation"]

log = logging.get(__name__)


class Conversation:
    """One client's topics and rights. :meth:`handle` never waits, so inbound frames are always read (pongs among them);
    joining topics, which does wait for Redis and for the client, is a task's, one after the other.
    """

    __slots__ = (
        "_began", "_claims", "_connection", "_heart", "_hub", "_joins", "_limits", "_session", "_sessions",
        "_subscriptions", "_token_clock", "_verifier",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        session: Session,
        *,
        hub: Hub,
        sessions: Sessions,
        verifier: TokenVerifier,
        limits: Limits,
        heart: LifeSign,
    ) -> None:
        self._connection = connection
        self._session = session
        self._claims = session.claims
        self._hub = hub
        self._sessions = sessions
        self._verifier = verifier
        self._limits = limits
        self._heart = heart
        self._token_clock = TokenClock(connection, limits)
        self._joins = Joins(connection, hub, limits)
        self._subscriptions: dict[str, Subscription] = {}
        self._began = time.monotonic()

    def start(self, topics: Sequence[str], positions: Mapping[str, str]) -> None:
        """Ping, watch the token and join topics until :meth:`stop`; begin with these and those of the session.

        Raises:
            Closing: the connection has to end.
        """
        log.info(Log.CONNECTED, tenant=self._claims.tenant, session=self._session.id)
        self._heart.start()
        self._token_clock.set(self._claims.exp)
        names = dict.fromkeys([*topics, *self._session.topics])
        self._subscribe((TopicSince(topic=name, since=positions.get(name)) for name in names), None)
        self._sessions.keep(self._session, self._subscriptions, self._claims)

    def stop(self) -> None:
        """Leave every topic and stop every clock."""
        self._joins.stop()
        self._heart.stop()
        self._token_clock.stop()
        for subscription in self._subscriptions.values():
            self._hub.unsubscribe(subscription)
        self._subscriptions.clear()
        log.info(
            Log.DISCONNECTED,
            tenant=self._claims.tenant,
            session=self._session.id,
            code=self._connection.close_code,
            seconds=round(time.monotonic() - self._began, 3),
        )

    def handle(self, frame: ClientFrame) -> None:
        """Act on a frame.

        Raises:
            Closing: the connection has to end.
        """
        match frame:
            case Pong():
                self._heart.pong()
            case ClientPing():
                self._connection.send(ServerPong())
            case Subscribe(id=request_id, topics=topics):
                self._subscribe(topics, request_id)
            case Unsubscribe(topics=names):
                for name in names:
                    self._unsubscribe(name)
            case Token(id=request_id, token=token):
                self._refresh(token, request_id)
            case _:
                raise Closing(CloseCode.PROTOCOL, "one hello a connection, as its first frame")
        self._sessions.keep(self._session, self._subscriptions, self._claims)

    def _subscribe(self, requests: Iterable[TopicSince], request_id: RequestId | None) -> None:
        for request in requests:
            error = self._refusal(request.topic, request_id)
            if error is not None:
                self._connection.send(error)
                continue
            since = None if request.since is None else Position.parse(request.since)
            self._join(check_topic(request.topic), since, request_id)

    def _refusal(self, name: str, request_id: RequestId | None) -> Error | None:
        try:
            topic = check_topic(name)
        except InvalidTopic as exc:
            return Error(id=request_id, code="invalid_topic", message=f"{exc}: {name[:80]!r}", temporary=False)
        if self._token_clock.is_expired:
            message = f"the token has expired; send a new one, then subscribe {topic} again"
            return Error(id=request_id, code="token_expired", message=message, temporary=True, retry_ms=0)
        if not is_allowed(topic, self._claims):
            message = f"the token does not grant {topic}; get one that does"
            return Error(id=request_id, code="forbidden", message=message, temporary=False)
        if topic not in self._subscriptions and len(self._subscriptions) >= self._limits.topics:
            message = f"{topic} is one topic too many; unsubscribe others, or open another connection"
            return Error(id=request_id, code="too_many_topics", message=message, temporary=False)
        return None

    def _join(self, name: str, since: Position | None, request_id: RequestId | None) -> None:
        self._joins.check_rate()
        subscription = self._subscriptions.get(name)
        if subscription is None or since is not None:
            # It was asked for a replay of a topic it has: it gets one, and everything after it, once.
            self._unsubscribe(name)
            subscription = self._hub.subscribe(self._claims.tenant, name, self._connection)
            self._subscriptions[name] = subscription
        self._joins.add(subscription, since, request_id)

    def _unsubscribe(self, name: str) -> None:
        try:
            subscription = self._subscriptions.pop(check_topic(name), None)
        except InvalidTopic:
            return
        if subscription is None:
            return
        self._hub.unsubscribe(subscription)
        self._joins.drop(subscription)

    def _refresh(self, token: str, request_id: RequestId) -> None:
        claims = self._verifier.verify(token)
        if (claims.sub, claims.tenant) != (self._claims.sub, self._claims.tenant):
            raise Closing(CloseCode.FORBIDDEN, "a fresh token must be for the same subject; open another connection")
        self._claims = claims
        self._token_clock.set(claims.exp)
        for name in [name for name in self._subscriptions if not is_allowed(name, claims)]:
            self._unsubscribe(name)
            message = f"the new token does not grant {name}; its updates end here"
            self._connection.send(Error(id=request_id, code="forbidden", message=message, temporary=False))
