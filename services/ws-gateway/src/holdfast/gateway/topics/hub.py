"""All topics of this process: who is subscribed where, and what is read from Redis when."""

import asyncio
import random
from collections.abc import Callable
from typing import Literal

from holdfast.domain.errors import LiveWindowUnavailable
from holdfast.domain.position import Position
from holdfast.gateway.protocol.frames import Limits
from holdfast.gateway.redis.source import Source
from holdfast.gateway.topics.feed import Message, Stage
from holdfast.gateway.topics.replay import Replay, Replays
from holdfast.gateway.topics.topic import Sink, Subscription, Topic
from holdfast.messaging.live import UNPUBLISHED_SECONDS, TopicReading, parse_message, topic_keys
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = ["Hub", "State", "LINGER_SECONDS"]

log = logging.get(__name__)

LINGER_SECONDS = 5.0
"""A topic stays subscribed for this long after its last client: a page that reloads finds it running."""
RECHECKS_PER_WINDOW = 4
"""A quiet topic is read this often within the window that keeps its epoch alive, so that one reading may well fail."""
SWEEP_SECONDS = 1.0
RETRY_SECONDS = 0.25

State = Literal["ok", "degraded"]


class Hub:
    """Connects subscriptions to Redis. Synchronous but for its tasks: no client makes another one wait.

    ``on_state`` is called when updates begin to be late (``degraded``) and when everything is caught up again (``ok``).
    """

    def __init__(
        self,
        source: Source,
        limits: Limits,
        *,
        window_seconds: int,
        on_state: Callable[[State], None],
        linger_seconds: float = LINGER_SECONDS,
    ) -> None:
        self._source = source
        self._limits = limits
        self._on_state = on_state
        self._linger_seconds = linger_seconds
        self._recheck_seconds = window_seconds / RECHECKS_PER_WINDOW
        self._topics: dict[bytes, Topic] = {}
        self._replays: dict[Topic, Replays] = {}
        self._behind: set[bytes] = set()
        self._is_connected = False
        self.state: State = "degraded"
        """``degraded`` until Redis has been reached and everything read."""

    @property
    def is_reachable(self) -> bool:
        """Whether Redis is there, though topics may still have to catch up: then a client that joins waits for its own."""
        return self._is_connected or self.state == "ok"

    # --- for clients

    def subscribe(self, tenant: str, name: str, sink: Sink) -> Subscription:
        """Register; the subscription is offered every step from now on and holds it until it is started."""
        topic = self._topic(tenant, name)
        if topic.linger is not None:
            topic.linger.cancel()
            topic.linger = None
        subscription = Subscription(topic, sink, self._limits)
        topic.subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget it. Its topic lingers after the last one."""
        subscription.is_ended = True
        topic = subscription.topic
        topic.subscriptions.discard(subscription)
        if not topic.subscriptions and topic.linger is None:
            topic.linger = asyncio.get_running_loop().call_later(self._linger_seconds, self._drop, topic)

    async def replay(self, topic: Topic, since: Position) -> Replay:
        """What a client at ``since`` has missed, at least up to what was published before this call.

        Most often that is in memory, and then asks Redis nothing but whether all has been heard. The answer is the topic's
        position until the caller awaits something else.

        Raises:
            LiveWindowUnavailable: no answer in time; it may be asked again.
        """
        while True:
            await topic.live()
            if topic.history.after(since) is not None:
                await self._source.heard()
                position = await topic.live()
                frames = topic.history.after(since)
                if frames is not None:
                    return Replay(None, position, frames)
            replays = self._replays_of(topic)
            if not replays.is_reading:
                return await replays.after(since)
            await replays.has_read()  # what is being read for others is in memory then, most likely

    # --- for the source

    def on_message(self, channel: bytes, payload: bytes) -> None:
        """Pass a message on, or find that something is missing before it."""
        topic = self._topics.get(channel)
        if topic is None:
            return
        try:
            message = Message(*parse_message(payload))
        except ValueError:
            # Not from our script. Should it stand for an update all the same, the reading will tell.
            topic.feed.recheck()
        else:
            topic.pass_on(topic.feed.received(message))
        self._read_if_due(topic)

    def on_confirmed(self, channel: bytes) -> None:
        """Read the topic: whatever was published before the confirmation did not come as a message."""
        topic = self._topics.get(channel)
        if topic is not None:
            topic.feed.confirmed()
            self._read_if_due(topic)

    def on_lost(self) -> None:
        """Trust no topic until its channel is confirmed again."""
        self._is_connected = False
        for topic in self._topics.values():
            topic.feed.lost()

    def on_down(self) -> None:
        """Redis stays away. Clients keep their connections and learn that updates are late."""
        self._set_state("degraded")

    def on_up(self) -> None:
        """Catch up with every topic before saying that all is well."""
        log.info(Log.REDIS_RESUBSCRIBED, topics=len(self._topics))
        self._is_connected = True
        self._behind = set(self._topics)
        self._settle()

    def on_flushed(self) -> None:
        """Find the new epoch of every topic; quiet ones would not tell of it for minutes."""
        for topic in self._topics.values():
            topic.feed.recheck()
            self._read_if_due(topic)

    # --- tasks

    async def sweep(self) -> None:
        """Read quiet topics again from time to time, until cancelled.

        It keeps their epochs alive, without which a client that comes back to a quiet topic would be told of a gap, and
        finds anything that was missed without a sign.
        """
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(SWEEP_SECONDS, UNPUBLISHED_SECONDS / 6, self._recheck_seconds / 2))
            for topic in list(self._topics.values()):
                if topic.recheck_at <= loop.time():
                    topic.recheck_at = self._next_recheck(topic)
                    topic.feed.recheck()
                    self._read_if_due(topic)

    async def close(self) -> None:
        """End the readings under way."""
        readers = [topic.reader for topic in self._topics.values() if topic.reader is not None]
        for reader in readers:
            reader.cancel()
        for replays in self._replays.values():
            replays.cancel()
        await asyncio.gather(*readers, return_exceptions=True)

    def _topic(self, tenant: str, name: str) -> Topic:
        channel = topic_keys(tenant, name).channel.encode()
        topic = self._topics.get(channel)
        if topic is None:
            topic = self._topics[channel] = Topic(tenant, name, self._limits)
            topic.recheck_at = self._next_recheck(topic)
            self._source.want(channel)
        return topic

    def _replays_of(self, topic: Topic) -> Replays:
        async def read(since: int) -> TopicReading:
            return await self._source.read(topic.keys, since, replay_limit=self._limits.replay)

        replays = self._replays.get(topic)
        if replays is None:
            replays = Replays(topic.history, read=read, frame=topic.update, replay_limit=self._limits.replay)
            self._replays[topic] = replays
        return replays

    def _drop(self, topic: Topic) -> None:
        channel = topic.keys.channel.encode()
        del self._topics[channel]
        self._behind.discard(channel)
        self._source.unwant(channel)
        if topic.reader is not None:
            topic.reader.cancel()
        if (replays := self._replays.pop(topic, None)) is not None:
            replays.cancel()
        self._settle()

    def _read_if_due(self, topic: Topic) -> None:
        if topic.feed.stage is Stage.READING and topic.reader is None:
            topic.reader = asyncio.get_running_loop().create_task(self._catch_up(topic), name=f"read {topic.name}")

    async def _catch_up(self, topic: Topic) -> None:
        """One reading at a time, until the feed is live (or unconfirmed again)."""
        try:
            while topic.feed.stage is Stage.READING:
                try:
                    since = topic.feed.begin_reading()
                    reading = await self._source.read(topic.keys, since, replay_limit=self._limits.replay)
                except LiveWindowUnavailable:
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                topic.pass_on(topic.feed.read(reading))
        finally:
            topic.reader = None
        if topic.feed.stage is Stage.LIVE:
            self._behind.discard(topic.keys.channel.encode())
            self._settle()

    def _settle(self) -> None:
        if self._is_connected and not self._behind:
            self._set_state("ok")

    def _set_state(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self._on_state(state)

    def _next_recheck(self, topic: Topic) -> float:
        # Spread: topics that began together, after a reconnect say, should not all be read in the same second for ever.
        spread = random.uniform(0.5, 1.0)  # noqa: S311 (jitter)
        position = topic.feed.position
        is_published = position is not None and position.offset > 0
        seconds = self._recheck_seconds if is_published else min(self._recheck_seconds, UNPUBLISHED_SECONDS / 3)
        return asyncio.get_running_loop().time() + seconds * spread
