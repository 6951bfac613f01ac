"""Publishing that a silent Redis does not slow down."""

from collections.abc import Sequence

import redis
from redis.exceptions import RedisError

from holdfast.domain.update import Update
from holdfast.messaging.live import Publisher
from holdfast.runtime.breaker import Breaker

__all__ = ["GuardedPublisher"]


class GuardedPublisher(Publisher):
    """A publisher behind a circuit breaker: otherwise each event would wait for a timeout, twice and more."""

    def __init__(self, client: "redis.Redis", *, window_seconds: int, window_updates: int) -> None:
        super().__init__(client, window_seconds=window_seconds, window_updates=window_updates)
        self._breaker = Breaker()

    def publish(self, updates: Sequence[Update]) -> None:
        """Publish in the given order, in one round trip, or in none.

        Raises:
            redis.exceptions.RedisError: Redis did not take them, or was not asked because it has not answered lately.
        """
        publish = super().publish
        if not self._breaker.call(lambda: publish(updates)):
            raise RedisError("the live window does not answer; the relay publishes later")
