"""Requests about events that exist: lists, attempts, dead letters, replays."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx

from holdfast.client.answers import read
from holdfast.client.events import Accepted, Attempt, StoredEvent
from holdfast.client.replays import DeadLetterGroup, ReplayProgress

__all__ = ["Operations"]

PAGE = 200
"""Events per request; the API returns no more at once."""

_JSON = "application/json"


class Operations:
    """The part of :class:`~holdfast.client.Client` that reads, replays and discards events that exist.

    Methods that change something need an API key with the scope ``operate``. Replays and discards carry an
    ``Idempotency-Key``, so that a request whose answer was lost can be repeated without acting twice.
    All methods raise ``ApiProblem`` and ``Unreachable``.
    """

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Any = None,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        raise NotImplementedError

    def events(self, *, limit: int | None = None, **filters: str | None) -> Iterator[StoredEvent]:
        """Events without their data, newest first, at most ``limit``; each page is requested when the iterator reaches it.

        ``filters``: ``source, id, type, state, subject, audience, error_type, handler, fingerprint, received_after,
        received_before``.
        """
        present = {name: value for name, value in filters.items() if value is not None}
        remaining_count, cursor = limit, None
        while remaining_count is None or remaining_count > 0:
            size = PAGE if remaining_count is None else min(remaining_count, PAGE)
            params = present | {"limit": str(size)} | ({"cursor": cursor} if cursor else {})
            items, cursor = read(self._request("GET", "/v1/events", params=params), _page)
            yield from items
            remaining_count = None if remaining_count is None else remaining_count - len(items)
            if cursor is None:
                return

    def attempts(self, event_id: str) -> list[Attempt]:
        """The attempts of an event that have ended, oldest first."""
        return read(self._request("GET", f"{_event(event_id)}/attempts"), _attempts)

    def dead_letters(self, *, limit: int = PAGE) -> list[DeadLetterGroup]:
        """At most ``limit`` groups of dead letters (1 to 200), the largest first."""
        return read(self._request("GET", "/v1/dead-letters", params={"limit": str(limit)}), _groups)

    def replay(self, event_id: str, *, edit: Mapping[str, Any] | None = None) -> Accepted:
        """Queue a dead or discarded event again, or record a processed one once more as a new event.

        ``edit``: ``{"data": …}``, other data for the new event; for processed events only.
        """
        return read(self._act(f"{_event(event_id)}/replay", edit), Accepted.read)

    def discard(self, event_id: str) -> Accepted:
        """Discard an event that is queued, failed or dead."""
        return read(self._act(f"{_event(event_id)}/discard"), Accepted.read)

    def count_replay(self, filter: Mapping[str, Any]) -> int:  # noqa: A002 (the API's own word)
        """Count the events that a replay with this filter would have if it began now."""
        answer = self._request(
            "POST", "/v1/replays", body={"filter": dict(filter), "dry_run": True}, content_type=_JSON
        )
        return read(answer, lambda body: int(body["count"]))

    def start_replay(self, filter: Mapping[str, Any], *, rate_per_s: float) -> ReplayProgress:  # noqa: A002
        """Begin to replay all events that the filter matches now, at most ``rate_per_s`` of them per second."""
        body = {"filter": dict(filter), "rate_per_s": rate_per_s}
        return read(self._act("/v1/replays", body), ReplayProgress.read)

    def replay_progress(self, replay_id: str) -> ReplayProgress:
        """How far a replay is."""
        return read(self._request("GET", f"/v1/replays/{quote(replay_id, safe='')}"), ReplayProgress.read)

    def cancel_replay(self, replay_id: str) -> ReplayProgress:
        """Stop a replay. Events that it has already replayed stay replayed."""
        return read(self._request("DELETE", f"/v1/replays/{quote(replay_id, safe='')}"), ReplayProgress.read)

    def revoke_tokens(self, *, sub: str | None = None, jti: str | None = None) -> bool:
        """Revoke all live tokens of a subject that exist now (``sub``), or one token by its id (``jti``).

        Returns ``True`` if gateways have been notified, so that open connections end now; ``False`` if Redis is away, and
        they end once it is back. Revoking again is safe.
        """
        body = {name: value for name, value in {"sub": sub, "jti": jti}.items() if value is not None}
        answer = self._request("POST", "/v1/tokens/revoke", body=body, content_type=_JSON)
        return read(answer, lambda body: bool(body["immediate"]))

    def _act(self, path: str, body: Any = None) -> httpx.Response:
        headers = {"Idempotency-Key": uuid4().hex}
        return self._request("POST", path, body=body, content_type=_JSON, headers=headers)


def _event(event_id: str) -> str:
    return f"/v1/events/{quote(event_id, safe='')}"


def _page(body: Any) -> tuple[list[StoredEvent], str | None]:
    return list(map(StoredEvent.read, body["items"])), body["next_cursor"]


def _attempts(body: Any) -> list[Attempt]:
    return list(map(Attempt.read, body["items"]))


def _groups(body: Any) -> list[DeadLetterGroup]:
    return list(map(DeadLetterGroup.read, body["items"]))
