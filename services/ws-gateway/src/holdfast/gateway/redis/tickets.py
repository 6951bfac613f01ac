"""Tickets: what a browser's ``EventSource`` shows instead of a token, since it sends no headers of the page's choice.

A ticket stands in an address, where it may be logged or kept in a history; so it lives for seconds and is good for one use.
"""

import secrets
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import redis.asyncio
from pydantic import ValidationError
from redis.exceptions import ConnectionError as RedisConnectionError

from holdfast.domain.errors import LiveWindowUnavailable
from holdfast.messaging.connect import translated
from holdfast.messaging.contracts import LiveTokenV1

__all__ = ["TICKET_SECONDS", "Tickets"]

Answer = TypeVar("Answer")

TICKET_SECONDS = 30
"""From the answer to its use by the next line of the page's script."""


class Tickets:
    """Tickets in Redis (``live:ticket:<ticket>``, the token's claims), good on any gateway."""

    def __init__(self, client: "redis.asyncio.Redis") -> None:
        self._client = client

    async def issue(self, claims: LiveTokenV1) -> str:
        """A new ticket with the rights of a token that has been verified.

        Raises:
            LiveWindowUnavailable: no answer in time.
        """
        ticket = secrets.token_urlsafe(24)
        with translated(LiveWindowUnavailable):
            await _once_more(
                lambda: self._client.set(f"live:ticket:{ticket}", claims.model_dump_json(), ex=TICKET_SECONDS)
            )
        return ticket

    async def redeem(self, ticket: str) -> LiveTokenV1 | None:
        """The claims behind a ticket, once; ``None`` when it was used, has expired or never was.

        Raises:
            LiveWindowUnavailable: no answer in time; the ticket may be used up.
        """
        with translated(LiveWindowUnavailable):
            kept = await _once_more(lambda: self._client.getdel(f"live:ticket:{ticket}"))
        if kept is None:
            return None
        try:
            claims = LiveTokenV1.model_validate_json(kept)
        except ValidationError:
            return None
        return claims if claims.exp > time.time() else None


async def _once_more(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Ask Redis, and again if its connection turns out to be dead: after a restart of Redis the pool is full of those."""
    try:
        return await ask()
    except RedisConnectionError:
        return await ask()
