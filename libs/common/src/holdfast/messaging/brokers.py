"""Which broker an address means."""

from urllib.parse import urlsplit

from holdfast.domain.errors import ConfigurationError
from holdfast.messaging.bell import Bell
from holdfast.messaging.broker import redis_broker
from holdfast.messaging.redis_bell import RedisBell

__all__ = ["open_bell"]


def open_bell(url: str, *, timeout_seconds: float, is_consumer: bool) -> Bell:
    """The bell of the broker at ``url``. Does not connect yet.

    Args:
        timeout_seconds: the longest that one call may take.
        is_consumer: whether :meth:`Bell.consume` will be called; only consumers look after dead workers' messages.

    Raises:
        ConfigurationError: no bell is known for the address's scheme.
    """
    scheme = urlsplit(url).scheme
    if scheme in {"redis", "rediss", "unix"}:
        return RedisBell(redis_broker(url, timeout_seconds=timeout_seconds, is_consumer=is_consumer))
    raise ConfigurationError(f"HOLDFAST_BROKER_URL begins with {scheme!r}; a broker is redis://, rediss:// or unix://")
