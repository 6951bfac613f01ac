"""Topics that a connection is about to join, one after the other: joining waits for Redis, and for the client."""

import asyncio
from typing import NamedTuple

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


class _Request(NamedTuple):
    subscription: Subscription
    since: Position | None
    id: RequestId | None


class Joins:
    """The queue of one connection, worked off by a task that is there while something waits."""

    __slots__ = ("_allowance", "_connection", "_hub", "_joining", "_limits", "_task", "_waiting")

    def __init__(self, connection: Connection, hub: Hub, limits: Limits) -> None:
        self._connection = connection
        self._hub = hub
        self._limits = limits
        self._allowance = Allowance(limits.joins_per_s, burst=4 * limits.joins_per_s)
        self._waiting: list[_Request] = []
        self._joining: Subscription | None = None
        self._task: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Join nothing more."""
        self._waiting.clear()
        self._cancel()

    def check_rate(self) -> None:
        """Count one join.

        Raises:
            Closing: the client asks for more than it may.
        """
        if not self._allowance.take() or len(self._waiting) >= WAITING_PER_TOPIC * self._limits.topics:
            raise Closing(CloseCode.RATE, "subscribing faster than topics can be joined; wait for subscribed")

    def add(self, subscription: Subscription, since: Position | None, request_id: RequestId | None) -> None:
        """Join the topic after those that wait already."""
        self._waiting.append(_Request(subscription, since, request_id))
        self._work()

    def drop(self, subscription: Subscription) -> None:
        """The subscription has ended. Its topic may never be read again: a join under way must not wait for it."""
        if subscription is self._joining:
            self._cancel()
            if self._waiting:
                self._work()

    def _work(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="live joins")
            self._task.add_done_callback(self._ended)

    def _cancel(self) -> None:
        task, self._task, self._joining = self._task, None, None
        if task is not None:
            task.cancel()

    async def _run(self) -> None:
        while self._waiting:
            request = self._waiting.pop(0)
            self._joining = request.subscription
            await self._join(*request)
            self._joining = None

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

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """A bug in joining must not leave a client waiting for a ``subscribed`` that never comes."""
        if task is self._task:
            self._task = None
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            log.error(Log.CLIENT_FAILED, exc_info=error)
            self._connection.close(CloseCode.INTERNAL, "internal error; connect again")
        elif self._waiting:
            self._work()  # added after the task had seen that nothing waits
