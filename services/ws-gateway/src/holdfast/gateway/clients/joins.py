"""Topics that a connection is about to join, one after the other: joining waits for Redis, and for the client."""

import asyncio
from collections import deque

from holdfast.domain.position import Position
from holdfast.gateway.clients.connection import Connection
from holdfast.gateway.clients.resume import join
from holdfast.gateway.clients.timers import Allowance
from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Closing
from holdfast.gateway.protocol.frames import Limits, RequestId, Subscribed
from holdfast.gateway.topics.hub import Hub
from holdfast.gateway.topics.topic import Subscription
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = ["Joins"]

log = logging.get(__name__)

WAITING_PER_TOPIC = 4
"""Joins that may wait, for each topic that a connection may have: for a client that asks faster than Redis answers."""


class Joins:
    """The queue of one connection, worked off by a task of its own."""

    def __init__(self, connection: Connection, hub: Hub, limits: Limits) -> None:
        self._connection = connection
        self._hub = hub
        self._limits = limits
        self._allowance = Allowance(limits.joins_per_s, burst=4 * limits.joins_per_s)
        self._waiting: deque[tuple[Subscription, Position | None, RequestId | None]] = deque()
        self._has_waiting = asyncio.Event()
        self._joining: Subscription | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="live joins")
        self._task.add_done_callback(self._close_on_failure)

    def stop(self) -> None:
        """Join nothing more."""
        self._joining = None
        if self._task is not None:
            self._task.cancel()

    def check_rate(self) -> None:
        """Count one join.

        Raises:
            Closing: the client asks for more than it may.
        """
        if not self._allowance.take() or len(self._waiting) >= WAITING_PER_TOPIC * self._limits.topics:
            raise Closing(CloseCode.RATE, "subscribing faster than topics can be joined; wait for subscribed")

    def add(self, subscription: Subscription, since: Position | None, request_id: RequestId | None) -> None:
        """Join the topic after those that wait already."""
        self._waiting.append((subscription, since, request_id))
        self._has_waiting.set()

    def drop(self, subscription: Subscription) -> None:
        """The subscription has ended. Its topic may never be read again: a join under way must not wait for it."""
        if subscription is self._joining:
            self.stop()
            self.start()

    async def _run(self) -> None:
        while True:
            while self._waiting:
                self._joining, since, request_id = self._waiting.popleft()
                await self._join(self._joining, since, request_id)
                self._joining = None
            self._has_waiting.clear()
            await self._has_waiting.wait()

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
            subscription, since=since, request_id=request_id, hub=self._hub, outbox=self._connection,
            limits=self._limits,
        )  # fmt: skip

    def _close_on_failure(self, task: "asyncio.Task[None]") -> None:
        """A bug in joining must not leave a client waiting for a ``subscribed`` that never comes."""
        if task.cancelled():
            return
        log.error(Log.CLIENT_FAILED, exc_info=task.exception())
        self._connection.close(CloseCode.INTERNAL, "internal error; connect again")
