"""Revoked live tokens in Redis: the copy of PostgreSQL's table that gateways ask before they let a client in.

It is one hash, so that Redis loses all of it or nothing of it. Its field ``copied`` says up to which ``seq`` it has
everything; without that field nobody knows which tokens were revoked, and gateways let nobody in anew. Ingest adds what it
revokes; ingest and maintenance fill the copy again when the field is missing or behind.
"""

import secrets
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

import redis

from holdfast.domain.errors import LiveWindowUnavailable
from holdfast.domain.revocation import KEPT_SECONDS, Revocation, RevocationKind
from holdfast.messaging.connect import redis_client, translated
from holdfast.messaging.live import REVOCATIONS_CHANNEL, revocation_keys

__all__ = ["COPIED", "EVERYTHING", "REVOCATIONS_KEY", "RevocationCopy", "open_revocation_copy"]

REVOCATIONS_KEY = "live:revocations"

COPIED = "copied"
"""The field that is there once the copy is complete."""

EVERYTHING = b"*"
"""Published on ``REVOCATIONS_CHANNEL`` when the copy has been filled anew: gateways look at every connection again."""

_FILLING = "filling"
_REVOKE_SCRIPT = files(__package__).joinpath("revoke.lua").read_text()
_COMPLETE_SCRIPT = files(__package__).joinpath("complete.lua").read_text()


class RevocationCopy:
    """Writes the copy.

    Args:
        client: a Redis client whose timeouts and retries the caller has chosen.
    """

    def __init__(self, client: "redis.Redis") -> None:
        self._client = client
        self._revoke = client.register_script(_REVOKE_SCRIPT)
        self._complete = client.register_script(_COMPLETE_SCRIPT)

    def add(self, revocation: Revocation) -> bool:
        """Tell gateways of one that was just recorded; ``False``: Redis did not take it, and the next filling brings it."""
        try:
            self._write([revocation], is_told=True)
        except LiveWindowUnavailable:
            return False
        return True

    def bring_up_to(self, newest: int, after: Callable[[int], Sequence[Revocation]]) -> int:
        """Copy what is missing, up to the revocation ``newest``; returns how many. One HGET when nothing is.

        Args:
            newest: the highest ``seq`` there is, 0 when there is none.
            after: the next revocations after a ``seq``, in its order; empty at the end.

        Raises:
            LiveWindowUnavailable: the copy is as incomplete as before.
        """
        with translated(LiveWindowUnavailable):
            copied: Any = self._client.hget(REVOCATIONS_KEY, COPIED)
        start = -1 if copied is None else int(copied)
        if start == newest:
            return 0
        # Ahead of the database: that was restored, and counts seq from an earlier one again.
        is_whole = not 0 <= start < newest
        return self._fill(0 if is_whole else start, newest, after, is_whole=is_whole)

    def forget(self, revocations: Sequence[Revocation]) -> None:
        """Take revocations out whose tokens have expired by themselves.

        Raises:
            LiveWindowUnavailable: some may be left.
        """
        if revocations:
            with translated(LiveWindowUnavailable):
                self._client.hdel(REVOCATIONS_KEY, *map(_name, revocations))

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def _fill(self, start: int, newest: int, after: Callable[[int], Sequence[Revocation]], *, is_whole: bool) -> int:
        mark, count = secrets.token_hex(8), 0
        with translated(LiveWindowUnavailable):
            self._client.hset(REVOCATIONS_KEY, _FILLING, mark)
        while batch := after(start):
            # Those missing from a copy that is otherwise complete are news to open connections.
            self._write(batch, is_told=not is_whole)
            start, count = batch[-1].seq, count + len(batch)
        with translated(LiveWindowUnavailable):
            is_complete = self._complete(keys=[REVOCATIONS_KEY], args=[mark, max(start, newest)])
            if is_complete and is_whole:
                self._client.publish(REVOCATIONS_CHANNEL, EVERYTHING)
        return count

    def _write(self, revocations: Sequence[Revocation], *, is_told: bool) -> None:
        pairs = [part for each in revocations for part in (_name(each), each.second)]
        channel = REVOCATIONS_CHANNEL if is_told else b""
        with translated(LiveWindowUnavailable):
            self._revoke(keys=[REVOCATIONS_KEY], args=[channel, KEPT_SECONDS, *pairs])


def open_revocation_copy(url: str, *, timeout_seconds: float) -> RevocationCopy:
    """The copy in the Redis at this address; a call takes ``timeout_seconds`` at most."""
    return RevocationCopy(redis_client(url, timeout_seconds=timeout_seconds))


def _name(revocation: Revocation) -> str:
    """The field, which is also the key that gateways of the release before ask."""
    token, subject = revocation_keys(revocation.tenant, sub=revocation.name, jti=revocation.name)
    return token if revocation.kind is RevocationKind.TOKEN else subject
