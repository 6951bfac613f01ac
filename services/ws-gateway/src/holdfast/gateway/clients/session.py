"""Sessions: what outlives a connection, kept in Redis so that any node continues what another one began.

A session is whose it is, its topics, and which connection has it: its ``generation`` counts the connections it had. What is
written carries the generation it was written for, so an older connection, here or on a node that was thought dead, changes
nothing any more and learns that it was taken over. Positions are the client's; sessions are never read destructively.
"""

import asyncio
import contextlib
import json
import random
import secrets
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any, Protocol

import redis.asyncio
from redis.exceptions import RedisError

from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Closing
from holdfast.gateway.protocol.frames import Limits
from holdfast.messaging.contracts import LiveTokenV1
from holdfast.messaging.live import REVOCATIONS_CHANNEL, revocation_keys
from holdfast.messaging.revocations import EVERYTHING, REVOCATIONS_KEY

__all__ = ["Occupant", "Session", "Sessions"]

OPEN_SCRIPT = files(__package__).joinpath("session_open.lua").read_text()
SAVE_SCRIPT = files(__package__).joinpath("session_save.lua").read_text()

SWEEP_SECONDS = 0.5
RETRY_SECONDS = 0.5
COUNTED_REFRESHES = 3
"""A connection counts against its subject's limit until this many refreshes are missed: its node is dead then."""
SAVES_AT_ONCE = 200
OPENING_ATTEMPTS = 3
OPENINGS_AT_ONCE = 16
"""More at once only queue up in Redis's single thread, each on a connection of its own."""


class Occupant(Protocol):
    """The holder of a session: ``connection.Connection``."""

    def close(self, code: CloseCode, reason: str) -> None:
        """End the client's connection."""


class Session:
    """One connection's hold on a session. Made by :meth:`Sessions.open`."""

    def __init__(self, id_: str, generation: int, claims: LiveTokenV1, topics: list[str], occupant: Occupant) -> None:
        self.id = id_
        self.generation = generation
        self.claims = claims
        self.topics = topics
        self.occupant = occupant
        self.is_open = True
        self.refresh_at = 0.0
        self.attempt: int | None = None
        self.is_confirmed = True
        """Whether Redis has said that the token is not revoked. A newer one has yet to be looked up."""

    @property
    def revocation_keys(self) -> tuple[str, str]:
        """Where it is said that the token, or all of the subject's, count no more."""
        return revocation_keys(self.claims.tenant, sub=self.claims.sub, jti=self.claims.jti)


class Sessions:
    """The sessions of this node's connections.

    Opening waits for Redis. Everything later is written behind by :meth:`run`, in batches: a change within milliseconds, and
    every session again from time to time, which keeps it alive and finds what a lost notice should have told.
    """

    def __init__(
        self, client: "redis.asyncio.Redis", *, node: bytes, limits: Limits, connections_per_subject: int
    ) -> None:
        self._client = client
        self._open_script = client.register_script(OPEN_SCRIPT)
        self._save_script = client.register_script(SAVE_SCRIPT)
        self._node = node
        self._ttl_seconds = limits.session_ttl_s
        self._refresh_seconds = limits.session_refresh_s
        self._counted_seconds = max(1, round(COUNTED_REFRESHES * limits.session_refresh_s))
        self._connections_per_subject = connections_per_subject
        self._opening_slots = asyncio.Semaphore(OPENINGS_AT_ONCE)
        self._sessions: dict[tuple[str, int], Session] = {}
        self._due: dict[Session, None] = {}
        self._has_due = asyncio.Event()

    async def open(
        self,
        claims: LiveTokenV1,
        occupant: Occupant,
        *,
        asked: str | None,
        topics: Sequence[str],
        attempt: int | None = None,
    ) -> Session:
        """Continue the session ``asked`` for, and let its older connection go, or begin a fresh one with ``topics``.

        ``attempt`` counts the session's connections as its client sees them: a lower one than before is late, and refused.

        Raises:
            Closing: the session is somebody else's, the token is revoked, or the subject has too many connections.
            redis.exceptions.RedisError: no answer in time.
        """
        outcome, *details = await self._run_opening(*self._opening(claims, asked, topics, attempt))
        if not details:
            raise _refusal(outcome)
        id_, generation, kept = details
        session = Session(id_.decode(), generation, claims, _topics(kept), occupant)
        session.attempt, session.refresh_at = attempt, self._next_refresh()
        self._sessions[session.id, session.generation] = session
        return session

    def keep(self, session: Session, topics: Iterable[str], claims: LiveTokenV1) -> None:
        """The connection has these topics and this token now."""
        names = list(topics)
        if (names, claims) != (session.topics, session.claims):
            session.is_confirmed &= claims.jti == session.claims.jti
            session.topics, session.claims = names, claims
            self._save_soon([session])

    def close(self, session: Session) -> None:
        """The connection has ended; the session stays for as long as it lives."""
        session.is_open = False
        self._sessions.pop((session.id, session.generation), None)
        self._save_soon([session])

    def on_notice(self, channel: bytes, payload: bytes) -> None:
        """A session of this node was taken over, or somebody's tokens were revoked."""
        if channel == REVOCATIONS_CHANNEL and payload == EVERYTHING:
            self.on_missed()
            return
        if channel == REVOCATIONS_CHANNEL:
            key = payload.decode(errors="replace")
            self._save_soon(session for session in self._sessions.values() if key in session.revocation_keys)
            return
        kind, _, rest = payload.decode(errors="replace").partition(" ")
        id_, _, generation = rest.partition(" ")
        session = self._sessions.get((id_, int(generation))) if kind == "taken" and generation.isdigit() else None
        if session is not None:
            _end(session, "taken")

    def on_missed(self) -> None:
        """Redis was flushed, or could not be heard for a while: write every session again, and see what has become of it."""
        self._save_soon(self._sessions.values())

    async def run(self) -> None:
        """Write what is due, until cancelled."""
        now = asyncio.get_running_loop().time
        sweep_at = now() + SWEEP_SECONDS
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(sweep_at):
                    await self._has_due.wait()
            if now() >= sweep_at:
                # By the clock, and not after a quiet moment: on a busy gateway there is none.
                self._save_soon([session for session in self._sessions.values() if session.refresh_at <= now()])
                sweep_at = now() + SWEEP_SECONDS
            if not await self.flush():
                await asyncio.sleep(RETRY_SECONDS)

    async def flush(self) -> bool:
        """Write what is due now; ``False`` when Redis does not take it."""
        self._has_due.clear()
        while batch := list(self._due)[:SAVES_AT_ONCE]:
            for session in batch:
                del self._due[session]
            try:
                await self._save(batch)
            except RedisError:
                self._due = dict.fromkeys(batch) | self._due
                return False
        return True

    async def _run_opening(self, keys: list[str], arguments: list[Any]) -> Any:
        """Repeated when no answer came: should it have been carried out, then doing so again changes nothing else."""
        async with self._opening_slots:
            for _ in range(OPENING_ATTEMPTS - 1):
                with contextlib.suppress(RedisError):
                    return await self._open_script(keys=keys, args=arguments)
            return await self._open_script(keys=keys, args=arguments)

    async def _save(self, batch: list[Session]) -> None:
        saved = [session.claims for session in batch]
        async with self._client.pipeline(transaction=False) as pipeline:
            for session in batch:
                keys, arguments = self._saving(session)
                await self._save_script(keys=keys, args=arguments, client=pipeline)
            verdicts = await pipeline.execute()
        for session, claims, verdict in zip(batch, saved, verdicts, strict=True):
            session.refresh_at = self._next_refresh()
            session.is_confirmed |= verdict == b"kept" and claims is session.claims
            if verdict != b"kept" and not (verdict == b"unsure" and session.is_confirmed):
                _end(session, verdict.decode())

    def _opening(
        self, claims: LiveTokenV1, asked: str | None, topics: Sequence[str], attempt: int | None
    ) -> tuple[list[str], list[Any]]:
        fresh = secrets.token_urlsafe(16)
        keys = [_key(asked or ""), _key(fresh), _connections_key(claims)]
        keys += [*revocation_keys(claims.tenant, sub=claims.sub, jti=claims.jti), REVOCATIONS_KEY]
        whose = [claims.sub, claims.tenant, claims.iat]
        lives = [self._ttl_seconds, self._counted_seconds, self._connections_per_subject]
        return keys, [asked or "", fresh, *whose, json.dumps(list(topics)), self._node, *lives, _text(attempt)]

    def _saving(self, session: Session) -> tuple[list[str], list[Any]]:
        claims = session.claims
        keys = [_key(session.id), _connections_key(claims), *session.revocation_keys, REVOCATIONS_KEY]
        whose = [claims.sub, claims.tenant, claims.iat]
        lives = [self._ttl_seconds, self._counted_seconds, int(session.is_open)]
        what = [json.dumps(session.topics), self._node, *lives, _text(session.attempt)]
        return keys, [session.id, session.generation, *whose, *what]

    def _save_soon(self, sessions: Iterable[Session]) -> None:
        for session in sessions:
            self._due[session] = None
        if self._due:
            self._has_due.set()

    def _next_refresh(self) -> float:
        # Spread: sessions that were opened together should not all be written in the same second for ever.
        return asyncio.get_running_loop().time() + self._refresh_seconds * random.uniform(0.7, 1.0)  # noqa: S311 (jitter)


def _key(id_: str) -> str:
    return f"live:session:{id_}"


def _connections_key(claims: LiveTokenV1) -> str:
    return f"live:connections:{claims.tenant}:{claims.sub}"


def _text(attempt: int | None) -> str:
    return "" if attempt is None else str(attempt)


def _topics(kept: bytes | None) -> list[str]:
    return [str(topic) for topic in json.loads(kept or b"[]")]


def _end(session: Session, why: str) -> None:
    if why == "taken":
        session.occupant.close(CloseCode.TAKEN_OVER, "this session goes on in another connection")
    else:
        closing = _refusal(why.encode())
        session.occupant.close(closing.code, closing.reason)


def _refusal(outcome: bytes) -> Closing:
    if outcome == b"foreign":
        return Closing(CloseCode.FORBIDDEN, "the session belongs to another subject; connect without it")
    if outcome == b"crowded":
        return Closing(CloseCode.TOO_MANY_CONNECTIONS, "too many connections of this subject; close others first")
    if outcome == b"unsure":
        return Closing(CloseCode.UNAVAILABLE, "it is not known yet which tokens are revoked; connect again later")
    if outcome == b"late":
        return Closing(CloseCode.TAKEN_OVER, "a newer connection has this session")
    return Closing(CloseCode.REVOKED, "the token was revoked")
