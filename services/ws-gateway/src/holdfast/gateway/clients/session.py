"""Sessions: what outlives a connection, kept in Redis so that any node continues what another one began.

A session is whose it is, its topics, and which connection has it: its ``generation`` counts the connections it had. What is
written carries the generation it was written for, so an older connection, here or on a node that was thought dead, changes
nothing any more and learns that it was taken over. Positions are the client's; sessions are never read destructively.
"""

import asyncio
import contextlib
import random
from collections.abc import Iterable, Sequence
from typing import Protocol

from holdfast.domain.errors import LiveWindowUnavailable
from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Closing
from holdfast.gateway.redis.session_store import SessionStore
from holdfast.messaging.contracts import LiveTokenV1
from holdfast.messaging.live import REVOCATIONS_CHANNEL, revocation_keys
from holdfast.messaging.revocations import EVERYTHING

__all__ = ["Occupant", "Session", "Sessions"]

SWEEP_SECONDS = 0.5
RETRY_SECONDS = 0.5
SAVES_AT_ONCE = 200


class Occupant(Protocol):
    """The holder of a session: ``connection.Connection``."""

    def close(self, code: CloseCode, reason: str) -> None:
        """End the client's connection."""


class Session:
    """One connection's hold on a session. Made by :meth:`Sessions.open`."""

    __slots__ = (
        "attempt", "claims", "generation", "id", "is_confirmed", "is_open", "occupant", "refresh_at", "topics",
    )  # fmt: skip

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

    def __init__(self, store: SessionStore, *, refresh_seconds: float) -> None:
        self._store = store
        self._refresh_seconds = refresh_seconds
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
            LiveWindowUnavailable: no answer in time.
        """
        opened = await self._store.open(claims, asked=asked, topics=topics, attempt=attempt)
        if opened.is_refused:
            raise _refusal(opened.outcome)
        session = Session(opened.id, opened.generation, claims, list(opened.topics), occupant)
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
            except LiveWindowUnavailable:
                self._due = dict.fromkeys(batch) | self._due
                return False
        return True

    async def _save(self, batch: list[Session]) -> None:
        saved = [session.claims for session in batch]
        verdicts = await self._store.save(batch)
        for session, claims, verdict in zip(batch, saved, verdicts, strict=True):
            session.refresh_at = self._next_refresh()
            session.is_confirmed |= verdict == "kept" and claims is session.claims
            if verdict != "kept" and not (verdict == "unsure" and session.is_confirmed):
                _end(session, verdict)

    def _save_soon(self, sessions: Iterable[Session]) -> None:
        for session in sessions:
            self._due[session] = None
        if self._due:
            self._has_due.set()

    def _next_refresh(self) -> float:
        # Spread: sessions that were opened together should not all be written in the same second for ever.
        return asyncio.get_running_loop().time() + self._refresh_seconds * random.uniform(0.7, 1.0)  # noqa: S311 (jitter)


def _end(session: Session, why: str) -> None:
    if why == "taken":
        session.occupant.close(CloseCode.TAKEN_OVER, "this session goes on in another connection")
    else:
        closing = _refusal(why)
        session.occupant.close(closing.code, closing.reason)


def _refusal(outcome: str) -> Closing:
    if outcome == "foreign":
        return Closing(CloseCode.FORBIDDEN, "the session belongs to another subject; connect without it")
    if outcome == "crowded":
        return Closing(CloseCode.TOO_MANY_CONNECTIONS, "too many connections of this subject; close others first")
    if outcome == "unsure":
        return Closing(CloseCode.UNAVAILABLE, "it is not known yet which tokens are revoked; connect again later")
    if outcome == "late":
        return Closing(CloseCode.TAKEN_OVER, "a newer connection has this session")
    return Closing(CloseCode.REVOKED, "the token was revoked")
