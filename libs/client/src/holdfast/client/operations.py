"""What an operator asks of the API: lists, attempts, dead letters, replays."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx

from holdfast.client.answers import read

__all__ = ["Operations"]

PAGE = 200
"""Events asked for at once; the API gives no more."""

_JSON = "application/json"


class Operations:
    """The part of :class:`~holdfast.client.Client` that looks after events that exist. Acting takes the scope ``operate``.

    Requests that act carry an ``Idempotency-Key``, so that one whose answer was lost can be repeated without acting twice.
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

    def events(self, *, limit: int | None = None, **filters: str | None) -> Iterator[dict[str, Any]]:
        """Events without their data, newest first, ``limit`` at most, read page by page as they are asked for.

        ``filters``: ``source, id, type, state, subject, audience, error_type, handler, fingerprint, received_after,
        received_before``.
        """
        given = {name: value for name, value in filters.items() if value is not None}
        left, cursor = limit, None
        while left is None or left > 0:
            size = PAGE if left is None else min(left, PAGE)
            params = given | {"limit": str(size)} | ({"cursor": cursor} if cursor else {})
            items, cursor = read(self._request("GET", "/v1/events", params=params), _page)
            yield from items
            left = None if left is None else left - len(items)
            if cursor is None:
                return

    def attempts(self, event_id: str) -> list[dict[str, Any]]:
        """The attempts of an event that have ended, oldest first."""
        return read(self._request("GET", f"{_event(event_id)}/attempts"), _items)

    def dead_letters(self, *, limit: int = PAGE) -> list[dict[str, Any]]:
        """Groups of dead letters, the largest first; the ``filter`` of one fits :meth:`start_replay`."""
        return read(self._request("GET", "/v1/dead-letters", params={"limit": str(limit)}), _items)

    def replay(self, event_id: str, *, edit: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a dead, discarded or processed event round again. ``edit``: ``{"data": …}`` for a processed one's copy."""
        return self._act("POST", f"{_event(event_id)}/replay", edit)

    def discard(self, event_id: str) -> dict[str, Any]:
        """Give up an event that is queued, failed or dead."""
        return self._act("POST", f"{_event(event_id)}/discard")

    def count_replay(self, filter: Mapping[str, Any]) -> int:  # noqa: A002 (the API's own word)
        """How many events a replay would have now."""
        answer = self._request(
            "POST", "/v1/replays", body={"filter": dict(filter), "dry_run": True}, content_type=_JSON
        )
        return read(answer, lambda body: int(body["count"]))

    def start_replay(self, filter: Mapping[str, Any], *, rate_per_s: float) -> dict[str, Any]:  # noqa: A002
        """Replay all events that the filter matches now, at this rate; ``replay_id`` asks how far it is."""
        return self._act("POST", "/v1/replays", {"filter": dict(filter), "rate_per_s": rate_per_s})

    def replay_progress(self, replay_id: str) -> dict[str, Any]:
        """How far a replay is."""
        return read(self._request("GET", f"/v1/replays/{quote(replay_id, safe='')}"), _stated)

    def cancel_replay(self, replay_id: str) -> dict[str, Any]:
        """Stop a replay; what it has replayed stays so."""
        return read(self._request("DELETE", f"/v1/replays/{quote(replay_id, safe='')}"), _stated)

    def revoke_tokens(self, *, sub: str | None = None, jti: str | None = None) -> bool:
        """Revoke all live tokens that a subject has by now (``sub``), or one token by its id (``jti``).

        ``True``: open connections have been told; ``False``: they are as soon as Redis is back. It may be repeated.
        """
        body = {name: value for name, value in {"sub": sub, "jti": jti}.items() if value is not None}
        answer = self._request("POST", "/v1/tokens/revoke", body=body, content_type=_JSON)
        return read(answer, lambda body: bool(body["immediate"]))

    def _act(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        headers = {"Idempotency-Key": uuid4().hex}
        return read(self._request(method, path, body=body, content_type=_JSON, headers=headers), _stated)


def _event(event_id: str) -> str:
    return f"/v1/events/{quote(event_id, safe='')}"


def _page(body: Any) -> tuple[list[dict[str, Any]], str | None]:
    return list(body["items"]), body["next_cursor"]


def _items(body: Any) -> list[dict[str, Any]]:
    return list(body["items"])


def _stated(body: Any) -> dict[str, Any]:
    return {**body, "state": body["state"]}
