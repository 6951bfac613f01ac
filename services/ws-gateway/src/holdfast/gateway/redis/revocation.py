"""``python -m holdfast.gateway revoke``: end live tokens before their time."""

import argparse
import sys
from collections.abc import Sequence

import redis
from redis.exceptions import RedisError

from holdfast.domain.errors import ConfigurationError
from holdfast.messaging.live import revoke
from holdfast.runtime.settings import LiveSettings, load

__all__ = ["main"]

LONGEST_TOKEN_SECONDS = 86_400
"""The most that HOLDFAST_LIVE_TOKEN_MAX_SECONDS may be; after that a token is over by itself."""


def main(arguments: Sequence[str]) -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m holdfast.gateway revoke",
        description="Revoke a live token, or all that a subject has by now. Open connections end at once (4506).",
    )
    parser.add_argument("--tenant", required=True)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--sub", help="subject whose tokens, issued by now, count no more")
    what.add_argument("--jti", help="id of one token (its jti claim)")
    asked = parser.parse_args(arguments)
    if not asked.tenant or not (asked.sub or asked.jti):
        # Of a shell variable that is not set, say. It would match nothing, and look like success.
        parser.error("neither --tenant nor what is revoked may be empty")
    try:
        settings = load(LiveSettings)
        with redis.Redis.from_url(settings.redis_url.get_secret_value(), socket_timeout=5) as client:
            revoke(client, asked.tenant, seconds=LONGEST_TOKEN_SECONDS, jti=asked.jti, sub=asked.sub)
    except (ConfigurationError, RedisError) as exc:
        sys.stderr.write(f"not revoked: {exc}\n")
        return 1
    return 0
