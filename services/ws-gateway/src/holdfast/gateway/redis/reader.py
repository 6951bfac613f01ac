"""Readings of the live window, made together."""

import asyncio
import hashlib
from typing import Any

import redis.asyncio
from redis.exceptions import NoScriptError, RedisError

from holdfast.messaging.live import READ_SCRIPT, UNPUBLISHED_SECONDS, TopicKeys, TopicReading, parse_reading

__all__ = ["WindowReader"]

READINGS_AT_ONCE = 64
"""In one round trip. After a reconnect every topic is read again, and each call of its own would cost as much as ten."""

Request = tuple[TopicKeys, list[int | str], "asyncio.Future[TopicReading]"]


class WindowReader:
    """Runs the read script for all who ask within a turn of the loop, or while the round trip before is under way."""

    def __init__(self, client: "redis.asyncio.Redis", *, window_seconds: int) -> None:
        self._client = client
        self._digest = hashlib.sha1(READ_SCRIPT.encode(), usedforsecurity=False).hexdigest()
        self._window_seconds = window_seconds
        self._requests: list[Request] = []
        self._task: asyncio.Task[None] | None = None

    async def read(self, keys: TopicKeys, since: int | None, *, replay_limit: int) -> TopicReading:
        """Where a topic stands, and its updates after ``since``.

        Raises:
            redis.exceptions.RedisError: no answer in time; it may be asked again.
        """
        arguments: list[int | str] = ["" if since is None else since, replay_limit, self._window_seconds]
        arguments.append(min(UNPUBLISHED_SECONDS, self._window_seconds))
        answer: asyncio.Future[TopicReading] = asyncio.get_running_loop().create_future()
        self._requests.append((keys, arguments, answer))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="window reader")
        return await answer

    async def _run(self) -> None:
        try:
            while self._requests:
                batch, self._requests = self._requests[:READINGS_AT_ONCE], self._requests[READINGS_AT_ONCE:]
                batch = [request for request in batch if not request[2].done()]
                try:
                    replies = await self._call(batch)
                except RedisError as exc:
                    replies = [exc] * len(batch)
                for (_, _, answer), reply in zip(batch, replies, strict=True):
                    _tell(answer, reply)
        finally:
            self._task = None

    async def _call(self, batch: list[Request]) -> list[Any]:
        replies = await self._evaluate(batch)
        if any(isinstance(reply, NoScriptError) for reply in replies):
            # Redis was restarted or flushed its scripts. Asking before every call would cost a round trip each time.
            await self._client.script_load(READ_SCRIPT)
            replies = await self._evaluate(batch)
        return replies

    async def _evaluate(self, batch: list[Request]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipeline:
            for keys, arguments, _ in batch:
                pipeline.evalsha(self._digest, 2, keys.meta, keys.stream, *arguments)
            return list(await pipeline.execute(raise_on_error=False))


def _tell(answer: "asyncio.Future[TopicReading]", reply: Any) -> None:
    if answer.done():
        return
    try:
        if isinstance(reply, Exception):
            raise reply
        answer.set_result(parse_reading(reply))
    except (RedisError, TypeError, ValueError) as exc:
        # Also what is no reading at all: a caller that waits must not wait for ever.
        answer.set_exception(exc)
