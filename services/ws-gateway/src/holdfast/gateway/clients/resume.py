"""How a client joins a topic: from a position, or from now on."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from holdfast.domain.errors import LiveWindowUnavailable
from holdfast.domain.position import Position
from holdfast.gateway.protocol.codec import Frame
from holdfast.gateway.protocol.frames import Limits, RequestId, ServerFrame, Subscribed
from holdfast.gateway.topics.hub import Hub
from holdfast.gateway.topics.replay import Replay
from holdfast.gateway.topics.topic import Subscription

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
    if since is None:
        here = await subscription.topic.live()
        _go_live(subscription, here, None, request_id, outbox)
        return
    replay = await _replay(subscription, since, hub)
    if not await _send(subscription, replay.frames, outbox, limits) or subscription.is_ended:
        return
    if replay.reason is not None:
        outbox.send(subscription.topic.gap(replay.reason, replay.position))
    _go_live(subscription, replay.position, replay.reason is None, request_id, outbox)


async def _replay(subscription: Subscription, since: Position, hub: Hub) -> Replay:
    while True:
        try:
            return await hub.replay(subscription.topic, since)
        except LiveWindowUnavailable:
            await asyncio.sleep(RETRY_SECONDS)


async def _send(subscription: Subscription, missed: Sequence[Frame], outbox: Outbox, limits: Limits) -> bool:
    """Queue frames, in parts that leave the queue room for other topics. ``False``: the connection ends.

    500 updates of 64 KiB are thirty times the queue: a replay goes as fast as the client reads.
    """
    frames = size = 0
    for frame in missed:
        if frames >= limits.queue_frames // 4 or size >= limits.queue_bytes // 4:
            if not await outbox.room():
                return False
            frames = size = 0
        if subscription.is_ended:
            return True
        outbox.enqueue(frame)
        frames, size = frames + 1, size + len(frame.payload)
    return await outbox.room() if missed else True


def _go_live(
    subscription: Subscription,
    position: Position,
    recovered: bool | None,
    request_id: RequestId | None,
    outbox: Outbox,
) -> None:
    outbox.send(Subscribed(id=request_id, topic=subscription.topic.name, pos=str(position), recovered=recovered))
    subscription.start(position)
