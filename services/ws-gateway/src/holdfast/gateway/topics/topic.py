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
        self._here: Position | None = None
        """After the last step that was passed on: the one object that subscriptions which stand there share."""
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
            before = self._remember(step, frame)
            for subscription in self.subscriptions:
                # Nearly every client of a busy topic stands where the topic itself stood.
                if before is not None and subscription.position is before:
                    subscription.position = self._here
                    subscription.sink.enqueue(frame)
                else:
                    subscription.offer(step, frame)
            if isinstance(step, Jump):
                Metrics.gaps.labels(reason=step.reason).inc(len(self.subscriptions))
            else:
                Metrics.delivered.inc(len(self.subscriptions))
        if self.feed.stage is Stage.LIVE:
            if self.history.end != self.feed.position and self.feed.position is not None:
                self.history.begin(self.feed.position)
            self._is_live.set()

    def shared(self, position: Position) -> Position:
        """An equal position, the topic's own if it stands there."""
        return self._here if self._here == position else position

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

    def _remember(self, step: Step, frame: Frame) -> Position | None:
        """Stand behind the step. Returns where the topic stood, if the step is an update that follows that place."""
        before = self._here
        if isinstance(step, Jump):
            self._here = step.position
            self.history.begin(step.position)
            return None
        self._here = Position(step.epoch, step.offset)
        self.history.append(self._here, frame)
        follows = before is not None and (before.epoch, before.offset + 1) == (step.epoch, step.offset)
        return before if follows else None


class Subscription:
    """One client in one topic. It holds what it is offered until :meth:`start`, and then passes on what is new to it.

    Whatever a client's own reading and the topic's feed both tell is told once: a step at or before the subscription's
    position is dropped. So a client may join at any moment, also while the topic itself catches up.
    """

    __slots__ = ("_held", "_held_bytes", "_limits", "is_ended", "position", "sink", "topic")

    def __init__(self, topic: Topic, sink: Sink, limits: Limits) -> None:
        self.topic = topic
        self.sink = sink
        self.is_ended = False
        self.position: Position | None = None
        """After the last update that was queued; ``None`` before :meth:`start`."""
        self._held: list[tuple[Step, Frame]] = []
        self._held_bytes = 0
        self._limits = limits

    def offer(self, step: Step, frame: Frame) -> None:
        """Take the topic's next step."""
        if self.position is None:
            self._hold(step, frame)
        elif isinstance(step, Jump):
            self._jump(self.position, step, frame)
        else:
            self._advance(self.position, step, frame)

    def start(self, position: Position) -> None:
        """The client now stands at ``position``: pass on what was held beyond it, and from now on everything."""
        self.position = position
        held, self._held = self._held, []
        for step, frame in held:
            self.offer(step, frame)

    def _advance(self, position: Position, message: Message, frame: Frame) -> None:
        if message.epoch != position.epoch or message.offset <= position.offset:
            # Known already, or of another epoch: then a jump leads there, or the client's own reading was ahead of the feed.
            return
        if message.offset != position.offset + 1:
            self.sink.close(CloseCode.RESYNC, "a topic could not be continued; resume from your positions")
            return
        self.position = self.topic.shared(Position(message.epoch, message.offset))
        self.sink.enqueue(frame)

    def _jump(self, position: Position, jump: Jump, frame: Frame) -> None:
        if position.epoch == jump.position.epoch and jump.position.offset <= position.offset:
            return
        self.position = jump.position
        self.sink.enqueue(frame)

    def _hold(self, step: Step, frame: Frame) -> None:
        self._held.append((step, frame))
        self._held_bytes += len(frame.payload)
        # Half of the queue, which is empty when it is flushed into it.
        if len(self._held) > self._limits.queue_frames // 2 or self._held_bytes > self._limits.queue_bytes // 2:
            self._held.clear()
            self.sink.close(CloseCode.SLOW_CONSUMER, "reading the replay too slowly; resume from your positions")
