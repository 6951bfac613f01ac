"""What a client says after its ``hello``, and what comes of it."""

import asyncio
from collections import deque
from collections.abc import Iterable

from holdfast.domain.errors import InvalidTopic
from holdfast.domain.position import Position
from holdfast.domain.topics import check_topic
from holdfast.gateway.close_codes import CloseCode
from holdfast.gateway.codec import Closing
from holdfast.gateway.connection import Connection
from holdfast.gateway.hub import Hub
from holdfast.gateway.protocol import (
    ClientFrame,
    Error,
    Hello,
    Limits,
    Pong,
    RequestId,
    Subscribe,
    Subscribed,
    Token,
    TopicSince,
    Unsubscribe,
)
from holdfast.gateway.resume import join
from holdfast.gateway.timers import Heart, TokenClock
from holdfast.gateway.tokens import TokenVerifier, is_allowed
from holdfast.gateway.topic import Subscription
from holdfast.messaging.contracts import LiveTokenV1

__all__ = ["Conversation"]

JOINS_PER_TOPIC = 4
"""Joins that may wait, for each topic that a connection may have: a client that asks faster than Redis answers."""

Join = tuple[Subscription, Position | None, RequestId | None]


class Conversation:
    """One client's topics and rights. :meth:`handle` never waits, so inbound frames are always read (pongs among them);
    joining topics, which does wait for Redis and for the client, is :meth:`run_joins`'s, one after the other.
    """

    def __init__(
        self, connection: Connection, claims: LiveTokenV1, *, hub: Hub, verifier: TokenVerifier, limits: Limits
    ) -> None:
        self._connection = connection
        self._claims = claims
        self._hub = hub
        self._verifier = verifier
        self._limits = limits
        self._heart = Heart(connection, limits)
        self._token_clock = TokenClock(connection, limits)
        self._subscriptions: dict[str, Subscription] = {}
        self._joins: deque[Join] = deque()
        self._has_joins = asyncio.Event()

    def start(self, hello: Hello) -> None:
        """Begin to ping, watch the token, and subscribe the topics that came with the ``hello``."""
        self._heart.start()
        self._token_clock.set(self._claims.exp)
        self._subscribe((TopicSince(topic=name, since=hello.positions.get(name)) for name in hello.topics), None)

    def handle(self, frame: ClientFrame) -> None:
        """Act on a frame.

        Raises:
            Closing: the connection has to end.
        """
        match frame:
            case Pong():
                self._heart.pong()
            case Subscribe(id=request_id, topics=topics):
                self._subscribe(topics, request_id)
            case Unsubscribe(topics=names):
                for name in names:
                    self._unsubscribe(name)
            case Token(id=request_id, token=token):
                self._refresh(token, request_id)
            case _:
                raise Closing(CloseCode.PROTOCOL, "one hello a connection, as its first frame")

    async def run_joins(self) -> None:
        """Join topics in the order they were asked for, until cancelled."""
        while True:
            await self._has_joins.wait()
            self._has_joins.clear()
            while self._joins:
                await self._join(*self._joins.popleft())

    def end(self) -> None:
        """Leave every topic and stop every clock."""
        self._heart.stop()
        self._token_clock.stop()
        for subscription in self._subscriptions.values():
            self._hub.unsubscribe(subscription)
        self._subscriptions.clear()

    def _subscribe(self, requests: Iterable[TopicSince], request_id: RequestId | None) -> None:
        for request in requests:
            error = self._refusal(request.topic, request_id)
            if error is not None:
                self._connection.send(error)
                continue
            since = None if request.since is None else Position.parse(request.since)
            self._queue_join(check_topic(request.topic), since, request_id)

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

    def _queue_join(self, name: str, since: Position | None, request_id: RequestId | None) -> None:
        if len(self._joins) >= JOINS_PER_TOPIC * self._limits.topics:
            raise Closing(CloseCode.RATE, "subscribing faster than topics can be joined; wait for subscribed")
        subscription = self._subscriptions.get(name)
        if subscription is None or since is not None:
            # Asked for a replay of a topic it has: it gets one, and everything after it, once.
            self._unsubscribe(name)
            subscription = self._hub.subscribe(self._claims.tenant, name, self._connection)
            self._subscriptions[name] = subscription
        self._joins.append((subscription, since, request_id))
        self._has_joins.set()

    async def _join(self, subscription: Subscription, since: Position | None, request_id: RequestId | None) -> None:
        if subscription.is_ended:
            return
        if subscription.position is not None:
            # Subscribed before, and by now live: say so again rather than start over, which could skip updates.
            here = str(subscription.position)
            name = subscription.topic.name
            self._connection.send(Subscribed(id=request_id, topic=name, pos=here, recovered=None))
            return
        await join(
            subscription,
            since=since,
            request_id=request_id,
            hub=self._hub,
            outbox=self._connection,
            limits=self._limits,
        )

    def _unsubscribe(self, name: str) -> None:
        try:
            subscription = self._subscriptions.pop(check_topic(name), None)
        except InvalidTopic:
            return
        if subscription is not None:
            self._hub.unsubscribe(subscription)

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
