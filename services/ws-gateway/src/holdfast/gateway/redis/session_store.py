"""Sessions in Redis: what is kept of one, whose it is, and which connection has it.

Every call carries the generation that it is made for: an older connection changes nothing any more.
"""

import asyncio
import contextlib
import json
import secrets
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple, Protocol

import redis.asyncio
from redis.exceptions import RedisError

from holdfast.domain.errors import LiveWindowUnavailable
from holdfast.gateway.protocol.frames import Limits
from holdfast.messaging.connect import translated
from holdfast.messaging.contracts import LiveTokenV1
from holdfast.messaging.live import revocation_keys
from holdfast.messaging.revocations import REVOCATIONS_KEY

__all__ = ["Kept", "Opened", "SessionStore"]

OPEN_SCRIPT = files(__package__).joinpath("session_open.lua").read_text()
SAVE_SCRIPT = files(__package__).joinpath("session_save.lua").read_text()

COUNTED_REFRESHES = 3
"""A connection counts against its subject's limit until this many refreshes are missed: its node is dead then."""
OPENING_ATTEMPTS = 3
OPENINGS_AT_ONCE = 16
"""More at once only queue up in Redis's single thread, each on a connection of its own."""


class Kept(Protocol):
    """A session as it is to be kept: ``clients.session.Session``."""

    id: str
    generation: int
    claims: LiveTokenV1
    topics: list[str]
    attempt: int | None
    is_open: bool


class Opened(NamedTuple):
    """``outcome`` is ``continued`` or ``fresh``, or why there is no session (see ``session_open.lua``)."""

    outcome: str
    id: str = ""
    generation: int = 0
    topics: Sequence[str] = ()

    @property
    def is_refused(self) -> bool:
        """Whether there is no session."""
        return not self.id


class SessionStore:
    """The gateways' common memory of sessions. ``node`` is the channel by which this process is reached."""

    def __init__(
        self, client: "redis.asyncio.Redis", *, node: bytes, limits: Limits, connections_per_subject: int
    ) -> None:
        self._client = client
        self._open_script = client.register_script(OPEN_SCRIPT)
        self._save_script = client.register_script(SAVE_SCRIPT)
        self._node = node
        self._ttl_seconds = limits.session_ttl_s
        self._counted_seconds = max(1, round(COUNTED_REFRESHES * limits.session_refresh_s))
        self._connections_per_subject = connections_per_subject
        self._slots = asyncio.Semaphore(OPENINGS_AT_ONCE)

    async def open(
        self, claims: LiveTokenV1, *, asked: str | None, topics: Sequence[str], attempt: int | None
    ) -> Opened:
        """Continue the session ``asked`` for or begin a fresh one, see ``Sessions.open``.

        Repeated when no answer came: should it have been carried out, then doing so again changes nothing else.

        Raises:
            LiveWindowUnavailable: no answer in time.
        """
        keys, arguments = self._opening(claims, asked, topics, attempt)
        with translated(LiveWindowUnavailable):
            async with self._slots:
                for _ in range(OPENING_ATTEMPTS - 1):
                    with contextlib.suppress(RedisError):
                        return _opened(await self._open_script(keys=keys, args=arguments))
                return _opened(await self._open_script(keys=keys, args=arguments))

    async def save(self, sessions: Sequence[Kept]) -> list[str]:
        """Write them; a verdict on each: ``kept``, or why it is no more (see ``session_save.lua``).

        Raises:
            LiveWindowUnavailable: some may not be written; write all of them again.
        """
        with translated(LiveWindowUnavailable):
            async with self._client.pipeline(transaction=False) as pipeline:
                for session in sessions:
                    keys, arguments = self._saving(session)
                    await self._save_script(keys=keys, args=arguments, client=pipeline)
                return [verdict.decode() for verdict in await pipeline.execute()]

    def _opening(
        self, claims: LiveTokenV1, asked: str | None, topics: Sequence[str], attempt: int | None
    ) -> tuple[list[str], list[Any]]:
        fresh = secrets.token_urlsafe(16)
        keys = [_key(asked or ""), _key(fresh), _connections_key(claims)]
        keys += [*revocation_keys(claims.tenant, sub=claims.sub, jti=claims.jti), REVOCATIONS_KEY]
        whose = [claims.sub, claims.tenant, claims.iat]
        lives = [self._ttl_seconds, self._counted_seconds, self._connections_per_subject]
        return keys, [asked or "", fresh, *whose, json.dumps(list(topics)), self._node, *lives, _text(attempt)]

    def _saving(self, session: Kept) -> tuple[list[str], list[Any]]:
        claims = session.claims
        keys = [_key(session.id), _connections_key(claims)]
        keys += [*revocation_keys(claims.tenant, sub=claims.sub, jti=claims.jti), REVOCATIONS_KEY]
        whose = [claims.sub, claims.tenant, claims.iat]
        lives = [self._ttl_seconds, self._counted_seconds, int(session.is_open)]
        what = [json.dumps(session.topics), self._node, *lives, _text(session.attempt)]
        return keys, [session.id, session.generation, *whose, *what]


def _opened(answer: Any) -> Opened:
    outcome, *details = answer
    if not details:
        return Opened(outcome.decode())
    id_, generation, kept = details
    return Opened(outcome.decode(), id_.decode(), generation, [str(topic) for topic in json.loads(kept or b"[]")])


def _key(id_: str) -> str:
    return f"live:session:{id_}"


def _connections_key(claims: LiveTokenV1) -> str:
    return f"live:connections:{claims.tenant}:{claims.sub}"


def _text(attempt: int | None) -> str:
    return "" if attempt is None else str(attempt)
