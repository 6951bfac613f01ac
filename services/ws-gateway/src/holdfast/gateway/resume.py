"""How a client joins a topic: from a position, or from now on."""

import asyncio
from typing import Protocol

from redis.exceptions import RedisError

from holdfast.domain.position import Position
from holdfast.gateway.codec import Frame
from holdfast.gateway.feed import Message, shortfall
from holdfast.gateway.hub import Hub
from holdfast.gateway.protocol import Limits, RequestId, ServerFrame, Subscribed
from holdfast.gateway.topic import Subscription
from holdfast.messaging.live import TopicReading

__all__ = ["Outbox", "join"]

RETRY_SECONDS = 0.25


class Outbox(Protocol):
    """A client's queue: ``connection.Connection``."""

    def send(self, frame: ServerFrame) -> None:
        """Queue a frame made for this client."""

    def enqueue(self, frame: Frame) -> None:
        """Queue a frame."""

    async def room(self) -> bool:
        """Wait until the queue is empty; ``False`` when the connection ends."""


async def join(
    subscription: Subscription,
    *,
    since: Position | None,
    request_id: RequestId | None,
    hub: Hub,
    outbox: Outbox,
    limits: Limits,
) -> None:
    """Replay what came after ``since`` or tell of a gap, mark the end with ``subscribed``, and go live.

    The subscription has been registered before and holds what it is offered meanwhile. Between the end marker and its
    start there is no ``await``: a message in that moment would be neither held nor live.
    """
    here = await subscription.topic.live()
    if since is None:
        _go_live(subscription, here, None, request_id, outbox)
        return
    # Read even when ``since`` is where the topic stands here: Redis may be ahead of its messages, and what was published
    # before the client asked belongs before the end marker.
    reading = await _read(subscription, since, hub)
    reason = shortfall(since, reading, replay_limit=limits.replay)
    if reason is None and not await _replay(subscription, reading, outbox, limits):
        return
    if subscription.is_ended:
        return
    position = Position(reading.epoch, reading.top)
    if reason is not None:
        outbox.send(subscription.topic.gap(reason, position))
    _go_live(subscription, position, reason is None, request_id, outbox)


async def _read(subscription: Subscription, since: Position, hub: Hub) -> TopicReading:
    while True:
        try:
            return await hub.read(subscription.topic, since.offset)
        except RedisError:
            await asyncio.sleep(RETRY_SECONDS)
            await subscription.topic.live()


async def _replay(subscription: Subscription, reading: TopicReading, outbox: Outbox, limits: Limits) -> bool:
    """Queue the entries, in parts that leave the queue room for other topics. ``False``: the connection ends.

    500 updates of 64 KiB are thirty times the queue: a replay goes as fast as the client reads.
    """
    frames = size = 0
    for offset, body in reading.entries:
        if frames >= limits.queue_frames // 4 or size >= limits.queue_bytes // 4:
            if not await outbox.room():
                return False
            frames = size = 0
        if subscription.is_ended:
            return True
        frame = subscription.topic.frame(Message(reading.epoch, offset, body))
        outbox.enqueue(frame)
        frames, size = frames + 1, size + len(frame.payload)
    return await outbox.room()


def _go_live(
    subscription: Subscription,
    position: Position,
    recovered: bool | None,
    request_id: RequestId | None,
    outbox: Outbox,
) -> None:
    outbox.send(Subscribed(id=request_id, topic=subscription.topic.name, pos=str(position), recovered=recovered))
    subscription.start(position)
