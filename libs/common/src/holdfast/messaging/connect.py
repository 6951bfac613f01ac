"""Connections to Redis, and its errors in the house's own words.

Nothing outside ``messaging`` and the gateway's room ``redis`` names redis: here its errors become
:class:`BrokerUnavailable` or :class:`LiveWindowUnavailable`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from holdfast.domain.errors import BrokerUnavailable, LiveWindowUnavailable
from holdfast.runtime.descriptors import keep_from_children

__all__ = ["redis_client", "translated"]


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
        redis_connect_func=_on_connect,
    )


def _on_connect(connection: Any) -> None:
    keep_from_children(connection._sock)  # noqa: SLF001 (redis-py hands its socket to nobody)
    connection.on_connect()


@contextmanager
def translated(error: type[BrokerUnavailable | LiveWindowUnavailable]) -> Iterator[None]:
    """Turn whatever redis-py raises in the block into ``error``.

    Raises:
        BrokerUnavailable, LiveWindowUnavailable: ``error``, with redis-py's type and text, which hold no password.
    """
    try:
        yield
    except RedisError as exc:
        raise error(f"{type(exc).__name__}: {exc}") from exc
