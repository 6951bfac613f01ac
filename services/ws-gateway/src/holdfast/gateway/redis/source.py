"""Redis, as the gateway sees it: one pub/sub connection that is watched over, and readings of the live window.

The pub/sub connection is a bare ``redis.asyncio`` connection and not a ``PubSub``: that one reconnects by itself and says
so by nothing but another confirmation, losing what was published meanwhile. Here a broken connection is an exception, one
place reconnects, and every topic is confirmed and read again.
"""

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Protocol

import redis.asyncio
from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from holdfast.domain.errors import LiveWindowUnavailable
from holdfast.gateway.redis.echo import Echo
from holdfast.gateway.redis.reader import WindowReader
from holdfast.messaging.connect import translated
from holdfast.messaging.live import REVOCATIONS_CHANNEL, TopicKeys, TopicReading
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = ["Listener", "Notified", "Source", "CONNECT_SECONDS"]

log = logging.get(__name__)

FENCE_SECONDS = 2.0
"""Between two messages to ourselves."""
FENCE_LOST_SECONDS = 4.0
"""Unseen for this long, the connection counts as dead. A hung Redis, or a network that drops packets, raises nothing."""
MARK_SECONDS = 60
"""A mark that is gone earlier says that Redis was flushed: no connection breaks then, and a quiet topic would not tell."""
LAST_CHANCE_SECONDS = 0.25
CONNECT_SECONDS = 2.0
COMMAND_SECONDS = 1.0
"""For a reading; it only has to be shorter than a client's patience, since it is tried again."""
RETRY_SECONDS = (0.1, 0.25, 0.5, 1.0)
"""Between attempts to connect; the last one repeats."""
COMMANDS_AT_ONCE = 64
SUBSCRIBE_BATCH = 500


class Listener(Protocol):
    """Told by the reader task, which it must never make wait: ``hub.Hub``."""

    def on_confirmed(self, channel: bytes) -> None:
        """Redis confirmed the subscription of a channel."""

    def on_message(self, channel: bytes, payload: bytes) -> None:
        """A message on a channel."""

    def on_lost(self) -> None:
        """The connection broke; messages may be missed until each channel is confirmed again."""

    def on_down(self) -> None:
        """…and it could not be had back at once."""

    def on_up(self) -> None:
        """It is back. Confirmations follow."""

    def on_flushed(self) -> None:
        """Redis has forgotten everything, and the connection is the same."""


class Notified(Protocol):
    """Told what other processes say to this one, by the same task: ``session.Sessions``."""

    def on_notice(self, channel: bytes, payload: bytes) -> None:
        """A message to this node, or to all of them."""

    def on_missed(self) -> None:
        """Notices may have been missed, or what they are about forgotten."""


class _Silent(redis.exceptions.TimeoutError):
    """The fence was not seen in time."""


class Source:
    """Owns every connection to Redis. :meth:`run` is the task that keeps the pub/sub one."""

    def __init__(self, url: str, *, window_seconds: int) -> None:
        retry = Retry(NoBackoff(), 0)
        # RESP2: on RESP3 messages are pushes, which redis-py routes past the plain response reader.
        self._pubsub = ConnectionPool.from_url(
            url, protocol=2, socket_timeout=None, socket_connect_timeout=CONNECT_SECONDS, retry=retry
        )
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=COMMANDS_AT_ONCE,
            timeout=COMMAND_SECONDS,
            socket_timeout=COMMAND_SECONDS,
            socket_connect_timeout=COMMAND_SECONDS,
            retry=retry,
        )
        self.client = redis.asyncio.Redis.from_pool(pool)
        """For commands; they are answered in time or raise."""
        # What is said to ourselves never queues behind the clients' commands: its lateness would pass for an outage.
        self._own_client = redis.asyncio.Redis.from_url(
            url, socket_timeout=COMMAND_SECONDS, socket_connect_timeout=COMMAND_SECONDS, retry=retry
        )
        self.node = f"live:node:{secrets.token_hex(8)}".encode()
        """This process's channel, by which others reach it and it hears itself; and a key that is there while it lives."""
        self._reader = WindowReader(self.client, window_seconds=window_seconds)
        self._wanted: set[bytes] = set()
        self._requests: deque[tuple[str, bytes]] = deque()
        self._has_requests = asyncio.Event()
        self._is_listening = False
        self._heard_at = 0.0
        self._echo = Echo(lambda payload: self._own_client.publish(self.node, payload))
        self.has_tried = asyncio.Event()
        """Set once the first attempt to connect has ended, well or not."""

    def want(self, channel: bytes) -> None:
        """Subscribe. The listener is told of the confirmation, also when the channel is subscribed already."""
        self._wanted.add(channel)
        self._request("SUBSCRIBE", channel)

    def unwant(self, channel: bytes) -> None:
        """Unsubscribe."""
        self._wanted.discard(channel)
        self._request("UNSUBSCRIBE", channel)

    async def read(self, keys: TopicKeys, since: int | None, *, replay_limit: int) -> TopicReading:
        """Where a topic stands, and its updates after ``since``.

        Raises:
            LiveWindowUnavailable: no answer in time; it may be asked again.
        """
        with translated(LiveWindowUnavailable):
            return await self._reader.read(keys, since, replay_limit=replay_limit)

    async def heard(self) -> None:
        """Wait until every message that was published before this call has been told to the listener.

        Raises:
            LiveWindowUnavailable: the connection broke meanwhile, or is not there.
        """
        if not self._is_listening:
            raise LiveWindowUnavailable("no pub/sub connection")
        with translated(LiveWindowUnavailable):
            await self._echo.wait()

    async def run(self, listener: Listener, notified: Notified) -> None:
        """Keep the connection until cancelled."""
        failures = 0
        while True:
            try:
                async with self._connected() as connection:
                    failures = 0
                    self.has_tried.set()
                    listener.on_up()
                    notified.on_missed()
                    await self._listen(connection, listener, notified)
            except* (RedisError, OSError) as errors:
                log.warning(Log.REDIS_UNAVAILABLE, error=type(errors.exceptions[0]).__name__)
                if errors.subgroup(_Silent):
                    failures = 1  # it has been away for seconds already
            listener.on_lost()
            self._echo.lost()
            if failures > 0:
                # The first failure is tried again at once: a connection that was merely cut is no outage to tell of.
                listener.on_down()
                self.has_tried.set()
                await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS)) - 1])
            failures += 1

    async def aclose(self) -> None:
        """Close every connection."""
        await self.client.aclose()
        await self._own_client.aclose()
        await self._pubsub.aclose()

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        connection: Connection = self._pubsub.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.connect()  # type: ignore[no-untyped-call]
                # A stopped server still completes a TCP connect, so it has to answer something.
                await connection.send_command("SUBSCRIBE", self.node, REVOCATIONS_CHANNEL)
                await connection.read_response()
            yield connection
        finally:
            await connection.disconnect(nowait=True)

    async def _listen(self, connection: Connection, listener: Listener, notified: Notified) -> None:
        self._requests = deque(("SUBSCRIBE", channel) for channel in self._wanted)
        self._has_requests.set()
        self._heard_at = asyncio.get_running_loop().time()
        self._is_listening = True
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._receive(connection, listener, notified), name="redis messages")
                tasks.create_task(self._send_requests(connection), name="redis subscriptions")
                tasks.create_task(self._watch(listener, notified), name="redis fence")
        finally:
            self._is_listening = False

    async def _receive(self, connection: Connection, listener: Listener, notified: Notified) -> None:
        now = asyncio.get_running_loop().time
        while True:
            reply: list[Any] = await connection.read_response()
            kind, channel, payload = reply
            if kind == b"message":
                if channel == self.node and payload.isdigit():
                    self._heard_at = now()
                    self._echo.heard(payload)
                elif channel in (self.node, REVOCATIONS_CHANNEL):
                    notified.on_notice(channel, payload)
                else:
                    listener.on_message(channel, payload)
            elif kind == b"subscribe":
                listener.on_confirmed(channel)

    async def _send_requests(self, connection: Connection) -> None:
        while True:
            await self._has_requests.wait()
            self._has_requests.clear()
            while self._requests:
                command, channels = self._next_batch()
                await connection.send_command(command, *channels)

    def _next_batch(self) -> tuple[str, list[bytes]]:
        """The longest run of equal requests: their order matters, since a channel may be left and entered again."""
        command = self._requests[0][0]
        channels: list[bytes] = []
        while self._requests and self._requests[0][0] == command and len(channels) < SUBSCRIBE_BATCH:
            channels.append(self._requests.popleft()[1])
        return command, channels

    async def _watch(self, listener: Listener, notified: Notified) -> None:
        loop = asyncio.get_running_loop()
        was_marked = False
        while True:
            with contextlib.suppress(RedisError, OSError):
                is_marked = await self._fence()
                if was_marked and not is_marked:
                    log.warning(Log.REDIS_FLUSHED)
                    listener.on_flushed()
                    notified.on_missed()
                was_marked = True
            await asyncio.sleep(FENCE_SECONDS)
            if loop.time() - self._heard_at > FENCE_LOST_SECONDS:
                # It may be this process that was not heard: what has arrived while it had no turn is read first.
                await asyncio.sleep(LAST_CHANCE_SECONDS)
            if loop.time() - self._heard_at > FENCE_LOST_SECONDS + LAST_CHANCE_SECONDS:
                raise _Silent("the pub/sub connection has gone silent")

    async def _fence(self) -> bool:
        """Say something to ourselves, and leave a mark in Redis; whether the last mark was still there."""
        async with self._own_client.pipeline(transaction=False) as pipeline:
            pipeline.publish(self.node, b"0")
            pipeline.set(self.node, b"", ex=MARK_SECONDS, get=True)
            _, mark = await pipeline.execute()
        return mark is not None

    def _request(self, command: str, channel: bytes) -> None:
        if self._is_listening:  # otherwise the next connection starts with all that is wanted
            self._requests.append((command, channel))
            self._has_requests.set()
