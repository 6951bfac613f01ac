"""What a Redis looks like to somebody who searches for a fault: facts, without a verdict."""

import time
from dataclasses import dataclass
from typing import Any

from holdfast.domain.errors import LiveWindowUnavailable
from holdfast.messaging.broker import HEARTBEAT_TIMEOUT_MS
from holdfast.messaging.connect import redis_client, translated
from holdfast.messaging.revocations import COPIED, REVOCATIONS_KEY

__all__ = ["RedisFacts", "look_at_redis"]

TIMEOUT_SECONDS = 3.0

HEARTBEATS = "dramatiq:__heartbeats__"
"""Where Dramatiq's consumers sign in, each with the time in ms (dramatiq/brokers/redis/dispatch.lua)."""


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """A Redis, or a Valkey, at one moment."""

    server_id: str
    """Of this run of the server: two addresses with the same one lead to the same server."""
    is_replica: bool
    max_memory_bytes: int
    """0: no limit."""
    eviction_policy: str
    """``maxmemory-policy``: what is dropped at the limit."""
    ahead_seconds: float
    """How far the server's clock is ahead of this machine's, give or take the time of a round trip."""
    listener_count: int
    """Consumers of doorbells that were here within the last 15 seconds."""
    has_revocations: bool
    """Whether the copy of the revoked tokens is here, without which gateways let nobody in."""


def look_at_redis(url: str) -> RedisFacts:
    """Ask a Redis what it is and who uses it. Writes nothing.

    Raises:
        LiveWindowUnavailable: no answer within three seconds, or a refusal; with redis-py's words.
    """
    client = redis_client(url, timeout_seconds=TIMEOUT_SECONDS)
    try:
        with translated(LiveWindowUnavailable):
            return _look(client)
    finally:
        client.close()


def _look(client: Any) -> RedisFacts:
    began = time.time()
    seconds, microseconds = client.time()
    now, middle = seconds + microseconds / 1e6, (began + time.time()) / 2
    known = client.info("everything")
    # By the clock of the consumer, whichever machine that is on: one that is ahead counts as well.
    since_ms = (middle * 1000) - HEARTBEAT_TIMEOUT_MS
    return RedisFacts(
        server_id=str(known["run_id"]),
        is_replica=known["role"] != "master",
        max_memory_bytes=int(known.get("maxmemory", 0)),
        eviction_policy=str(known.get("maxmemory_policy", "unknown")),
        ahead_seconds=now - middle,
        listener_count=client.zcount(HEARTBEATS, since_ms, "+inf"),
        has_revocations=bool(client.hexists(REVOCATIONS_KEY, COPIED)),
    )
