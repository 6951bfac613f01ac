"""Messages to ourselves, over Redis and back."""

import asyncio
from collections.abc import Awaitable, Callable

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

__all__ = ["Echo"]


class Echo:
    """Tells when everything that was published before a moment has been heard.

    Redis runs one command after another and sends each subscriber its messages in that order, so whatever was published
    before our call arrives before our own echo. One call serves everybody who asks before it is made.

    Args:
        call: publishes a payload to the channel that this process hears itself on.
    """

    def __init__(self, call: Callable[[bytes], Awaitable[object]]) -> None:
        self._call = call
        self._count = 0
        self._asking: list[asyncio.Future[None]] = []
        self._called: dict[bytes, list[asyncio.Future[None]]] = {}
        self._caller: asyncio.Task[None] | None = None

    async def wait(self) -> None:
        """Wait until everything published by now has been heard.

        Raises:
            redis.exceptions.RedisError: the connection broke, so something may have been missed.
        """
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asking.append(answer)
        if self._caller is None:
            self._caller = asyncio.get_running_loop().create_task(self._run(), name="echo")
        await answer

    def heard(self, payload: bytes) -> None:
        """A payload came back."""
        for answer in self._called.pop(payload, []):
            if not answer.done():
                answer.set_result(None)

    def lost(self) -> None:
        """The connection broke: no call that is under way counts."""
        called, self._called = self._called, {}
        for answers in called.values():
            _fail(answers, RedisConnectionError("the pub/sub connection broke"))

    async def _run(self) -> None:
        try:
            while self._asking:
                self._count += 1
                payload = b"%d" % self._count
                self._called[payload], self._asking = self._asking, []
                try:
                    await self._call(payload)
                except RedisError as exc:
                    _fail(self._called.pop(payload, []), exc)
        finally:
            self._caller = None


def _fail(answers: list[asyncio.Future[None]], exc: RedisError) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_exception(exc)
