"""A topic in this process, and a client's subscription to it."""

import asyncio
from typing import Protocol

from holdfast.domain.position import GapReason, Position
from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Frame, update_frame, update_prefix
from holdfast.gateway.protocol.frames import Gap, Limits
from holdfast.gateway.topics.feed import Feed, Jump, Message, Stage, Step
from holdfast.gateway.topics.history import History
from holdfast.messaging.live import topic_keys
from holdfast.runtime.telemetry import Metrics

__all__ = ["Sink", "Subscription", "Topic"]

HISTORY_BYTES = 256 * 1024
"""Of each topic's last updates; with the usual half kilobyte an update this is as much as may be replayed."""


class Sink(Protocol):
    """Takes frames without making anybody wait: ``connection.Connection``."""

    def enqueue(self, frame: Frame) -> None:
        """Queue a frame."""

    def close(self, code: CloseCode, reason: str) -> None:
        """End the client's connection."""


class Topic:
    """One tenant's topic: its feed, and the subscriptions that are to be told."""

    def __init__(self, tenant: str, name: str, limits: Limits) -> None:
        self.tenant = tenant
        self.name = name
        self.keys = topic_keys(tenant, name)
        self.feed = Feed(replay_limit=limits.replay)
        self.history = History(frames=limits.replay, size_bytes=HISTORY_BYTES)
        self.subscriptions: set[Subscription] = set()
        self.reader: asyncio.Task[None] | None = None
        """The task that reads for the feed, while there is one."""
        self.linger: asyncio.TimerHandle | None = None
        """Set while nobody is subscribed."""
        self.recheck_at = 0.0
        self._is_live = asyncio.Event()
        self._prefix = update_prefix(name)
        self._gap_jitter_ms = limits.gap_jitter_ms

    async def live(self) -> Position:
        """Wait until the feed is live; return where it stands. True until the caller awaits again."""
        while True:
            await self._is_live.wait()
            position = self.feed.position
            if self.feed.stage is Stage.LIVE and position is not None:
                return position
            self._is_live.clear()

    def pass_on(self, steps: list[Step]) -> None:
        """Hand steps of the feed to every subscription. Each frame is made once."""
        for step in steps:
            frame = self.frame(step)
            self._remember(step, frame)
            for subscription in self.subscriptions:
                subscription.offer(step, frame)
            if isinstance(step, Jump):
                Metrics.gaps.labels(reason=step.reason).inc(len(self.subscriptions))
            else:
                Metrics.delivered.inc(len(self.subscriptions))
        if self.feed.stage is Stage.LIVE:
            if self.history.end != self.feed.position and self.feed.position is not None:
                self.history.begin(self.feed.position)
            self._is_live.set()

    def frame(self, step: Step) -> Frame:
        """An ``update`` or a ``gap``."""
        if isinstance(step, Message):
            return self.update(*step)
        return Frame.of(self.gap(step.reason, step.position))

    def update(self, epoch: str, offset: int, body: bytes) -> Frame:
        """An ``update`` frame of this topic."""
        return update_frame(self._prefix, epoch, offset, body, topic=self.name)

    def gap(self, reason: GapReason, position: Position) -> Gap:
        """A ``gap`` frame of this topic."""
        return Gap(topic=self.name, reason=reason, pos=str(position), jitter_ms=self._gap_jitter_ms)

    def _remember(self, step: Step, frame: Frame) -> None:
        if isinstance(step, Message):
            self.history.append(Position(step.epoch, step.offset), frame)
        else:
            self.history.begin(step.position)


class Subscription:
    """One client in one topic. It holds what it is offered until :meth:`start`, and then passes on what is new to it.

    Whatever a client's own reading and the topic's feed both tell is told once: a step at or before the subscription's
    position is dropped. So a client may join at any moment, also while the topic itself catches up.
    """

    def __init__(self, topic: Topic, sink: Sink, limits: Limits) -> None:
        self.topic = topic
        self.is_ended = False
        self._sink = sink
        self._position: Position | None = None
        self._held: list[tuple[Step, Frame]] = []
        self._held_bytes = 0
        self._limits = limits

    @property
    def position(self) -> Position | None:
        """After the last update that was queued; ``None`` before :meth:`start`."""
        return self._position

    def offer(self, step: Step, frame: Frame) -> None:
        """Take the topic's next step."""
        if self._position is None:
            self._hold(step, frame)
        elif isinstance(step, Jump):
            self._jump(step, frame)
        else:
            self._advance(self._position, step, frame)

    def start(self, position: Position) -> None:
        """The client now stands at ``position``: pass on what was held beyond it, and from now on everything."""
        self._position = position
        held, self._held = self._held, []
        for step, frame in held:
            self.offer(step, frame)

    def _advance(self, position: Position, message: Message, frame: Frame) -> None:
        if message.epoch != position.epoch or message.offset <= position.offset:
            # Known already, or of another epoch: then a jump leads there, or the client's own reading was ahead of the feed.
            return
        if message.offset != position.offset + 1:
            self._sink.close(CloseCode.RESYNC, "a topic could not be continued; resume from your positions")
            return
        self._position = Position(message.epoch, message.offset)
        self._sink.enqueue(frame)

    def _jump(self, jump: Jump, frame: Frame) -> None:
        position = self._position
        if position is not None and position.epoch == jump.position.epoch and jump.position.offset <= position.offset:
            return
        self._position = jump.position
        self._sink.enqueue(frame)

    def _hold(self, step: Step, frame: Frame) -> None:
        self._held.append((step, frame))
        self._held_bytes += len(frame.payload)
        # Half of the queue, which is empty when it is flushed into it.
        if len(self._held) > self._limits.queue_frames // 2 or self._held_bytes > self._limits.queue_bytes // 2:
            self._held.clear()
            self._sink.close(CloseCode.SLOW_CONSUMER, "reading the replay too slowly; resume from your positions")
