"""Whether Redis knows which live tokens are revoked: without that no client is let in anew (``session_open.lua``)."""

import asyncio
import contextlib

import redis.asyncio
from redis.exceptions import RedisError

from holdfast.messaging.revocations import COPIED, REVOCATIONS_KEY
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = ["RevocationWatch"]

log = logging.get(__name__)

LOOK_SECONDS = 1.0


class RevocationWatch:
    """Looks for the copy of the revocations, for readiness and the log. What decides about a client is looked up with it."""

    def __init__(self, client: "redis.asyncio.Redis") -> None:
        self._client = client
        self.is_complete = False

    async def run(self) -> None:
        """Look until cancelled."""
        was_complete: bool | None = None
        while True:
            with contextlib.suppress(RedisError):  # readiness has a check of its own for that
                self.is_complete = bool(await self._client.hexists(REVOCATIONS_KEY, COPIED))
                if self.is_complete != was_complete:
                    _tell(self.is_complete, is_first=was_complete is None)
                was_complete = self.is_complete
            await asyncio.sleep(LOOK_SECONDS)


def _tell(is_complete: bool, *, is_first: bool) -> None:
    if not is_complete:
        log.warning(Log.REVOCATIONS_MISSING)
    elif not is_first:
        log.info(Log.REVOCATIONS_BACK)
