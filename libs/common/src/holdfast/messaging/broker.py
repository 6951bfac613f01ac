"""The Dramatiq broker, set up so that correctness never depends on it.

Retries, delays and dead letters live in PostgreSQL. The middleware is therefore an explicit list without Retries (it loses
a message when Redis is down at the wrong moment, and the message is acknowledged all the same), AgeLimit, TimeLimit (it
raises into threads and can end them for good), Callbacks, Pipelines and Prometheus.
"""

from collections.abc import Sequence

import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Middleware, ShutdownNotifications
from redis.backoff import NoBackoff
from redis.retry import Retry

__all__ = ["redis_client", "redis_broker"]

HEARTBEAT_TIMEOUT_MS = 15_000
"""After which other workers may take over the messages of a dead one. Doorbells are hints: the exact time matters little."""


def redis_client(url: str, *, timeout_seconds: float) -> "redis.Redis":
    """A client that answers or fails within ``timeout_seconds`` a call.

    redis-py's defaults retry for seconds (4.4 s measured against a closed port), which is no use to a request that has to be
    answered now and has another way to be found again.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
    )


def redis_broker(
    url: str, *, timeout_seconds: float, is_consumer: bool, middleware: Sequence[Middleware] = ()
) -> RedisBroker:
    """A broker for ringing (``is_consumer=False``) or for a worker.

    Only consumers do Dramatiq's upkeep of dead workers' messages: in a request it would cost the wrong caller time.
    """
    return RedisBroker(  # type: ignore[no-untyped-call]
        client=redis_client(url, timeout_seconds=timeout_seconds),
        middleware=[*middleware, *([ShutdownNotifications(notify_shutdown=True)] if is_consumer else [])],
        heartbeat_timeout=HEARTBEAT_TIMEOUT_MS,
        maintenance_chance=50_000 if is_consumer else 0,
        namespace="dramatiq",
    )
