"""Requests about events that exist: lists, attempts, dead letters, replays."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from holdfast.client.answers import read
from holdfast.client.events import Accepted, Attempt, StoredEvent
from holdfast.client.made import EventGroup, Step
from holdfast.client.nodes import Node
from holdfast.client.replays import DeadLetterGroup, DiscardProgress, ReplayProgress
from holdfast.client.requests import JSON, PAGE, Requests
from holdfast.client.statistics import Handlers, Statistics

__all__ = ["Operations"]


class Operations(Requests):
    """The part of :class:`~holdfast.client.Client` that reads, replays, discards and cancels events that exist.

    Methods that change something need an API key with the scope ``operate``. Replays and discards carry an
    ``Idempotency-Key``, so that a request whose answer was lost can be repeated without acting twice.
    All methods raise ``ApiProblem`` and ``Unreachable``.
    """

    def events(self, *, limit: int | None = None, **filters: str | None) -> Iterator[StoredEvent]:
        """Events without their data, newest first, at most ``limit``; each page is requested when the iterator reaches it.

        ``filters``: ``source, id, type, state, subject, audience, error_type, handler, fingerprint, request_id,
        trace_id, parent_id, received_after, received_before``.
        """
        return self._pages("/v1/events", filters, StoredEvent.read, limit)

    def attempts(self, event_id: str) -> list[Attempt]:
        """The attempts of an event that have ended, oldest first."""
        return read(self._request("GET", f"{_event(event_id)}/attempts"), _attempts)

    def steps(self, event_id: str) -> list[Step]:
        """The steps and sleeps that handlers of an event have done, oldest first; results for the scope ``operate``."""
        return read(self._request("GET", f"{_event(event_id)}/steps"), _steps)

    def groups(self, event_id: str) -> list[EventGroup]:
        """The groups of events that an event's handler made, in their order, and how far they are."""
        return read(self._request("GET", f"{_event(event_id)}/groups"), _event_groups)

    def dead_letters(self, *, limit: int = PAGE) -> list[DeadLetterGroup]:
        """At most ``limit`` groups of dead letters (1 to 200), the largest first."""
        return read(self._request("GET", "/v1/dead-letters", params={"limit": str(limit)}), _groups)

    def stats(self, window: str = "hour") -> Statistics:
        """How the tenant's events stand, and a series of what happened: ``hour``, ``day`` or ``quarter`` (90 days)."""
        return read(self._request("GET", "/v1/stats", params={"window": window}), Statistics.read)

    def handlers(self, window: str = "hour") -> Handlers:
        """How handlers did in a window as of :meth:`stats`, the busiest first, and the types that nobody serves."""
        return read(self._request("GET", "/v1/handlers", params={"window": window}), Handlers.read)

    def replay(self, event_id: str, *, edit: Mapping[str, Any] | None = None) -> Accepted:
        """Queue a dead or discarded event again, or record a processed one once more as a new event.

        ``edit``: ``{"data": …}``, other data for the new event; for processed events only.
        """
        return read(self._act(f"{_event(event_id)}/replay", edit), Accepted.read)

    def discard(self, event_id: str) -> Accepted:
        """Discard an event that is queued, failed or dead."""
        return read(self._act(f"{_event(event_id)}/discard"), Accepted.read)

    def cancel(self, event_id: str) -> Accepted:
        """Have an event ended that runs, which its worker does within a second or so; discard one that waits to run.

        While the answer's ``state`` is ``processing`` the outcome is open: :meth:`wait` tells it. A handler that ends at that
        moment is faster.
        """
        return read(self._act(f"{_event(event_id)}/cancel"), Accepted.read)

    def count_replay(self, filter: Mapping[str, Any]) -> int:  # noqa: A002 (the API's own word)
        """Count the events that a replay with this filter would have if it began now."""
        answer = self._request("POST", "/v1/replays", body={"filter": dict(filter), "dry_run": True}, content_type=JSON)
        return read(answer, lambda body: int(body["count"]))

    def start_replay(self, filter: Mapping[str, Any], *, rate_per_s: float) -> ReplayProgress:  # noqa: A002
        """Begin to replay all events that the filter matches now, at most ``rate_per_s`` of them per second."""
        body = {"filter": dict(filter), "rate_per_s": rate_per_s}
        return read(self._act("/v1/replays", body), ReplayProgress.read)

    def replays(self, *, state: str | None = None, limit: int | None = None) -> Iterator[ReplayProgress]:
        """Replays of many events, newest first, at most ``limit``; ``state`` is ``running``, ``done`` or ``cancelled``."""
        return self._pages("/v1/replays", {"state": state and str(state)}, ReplayProgress.read, limit)

    def replay_progress(self, replay_id: str) -> ReplayProgress:
        """How far a replay is."""
        return read(self._request("GET", f"/v1/replays/{quote(replay_id, safe='')}"), ReplayProgress.read)

    def cancel_replay(self, replay_id: str) -> ReplayProgress:
        """Stop a replay. Events that it has already replayed stay replayed."""
        return read(self._request("DELETE", f"/v1/replays/{quote(replay_id, safe='')}"), ReplayProgress.read)

    def count_discard(self, filter: Mapping[str, Any]) -> int:  # noqa: A002 (the API's own word)
        """Count the events that a discard with this filter would have if it began now."""
        answer = self._request(
            "POST", "/v1/discards", body={"filter": dict(filter), "dry_run": True}, content_type=JSON
        )
        return read(answer, lambda body: int(body["count"]))

    def start_discard(self, filter: Mapping[str, Any]) -> DiscardProgress:  # noqa: A002
        """Begin to discard all events that the filter matches now: dead letters, unless its ``state`` is another one."""
        return read(self._act("/v1/discards", {"filter": dict(filter)}), DiscardProgress.read)

    def discard_progress(self, discard_id: str) -> DiscardProgress:
        """How far a discard is."""
        return read(self._request("GET", f"/v1/discards/{quote(discard_id, safe='')}"), DiscardProgress.read)

    def cancel_discard(self, discard_id: str) -> DiscardProgress:
        """Stop a discard. Events that it has already discarded stay discarded."""
        return read(self._request("DELETE", f"/v1/discards/{quote(discard_id, safe='')}"), DiscardProgress.read)

    def workers(self) -> list[Node]:
        """The nodes: every running service that was heard of in the last ten minutes."""
        return read(self._request("GET", "/v1/workers"), _nodes)

    def worker(self, node_id: str) -> Node:
        """One node."""
        return read(self._request("GET", _node(node_id)), Node.read)

    def drain(self, node_id: str) -> Node:
        """Let a processor finish what it has and take nothing new. Needs the scope ``admin``; again it changes nothing."""
        return read(self._request("POST", f"{_node(node_id)}/drain"), Node.read)

    def undrain(self, node_id: str) -> Node:
        """Let a processor take events again. Needs the scope ``admin``; again it changes nothing."""
        return read(self._request("POST", f"{_node(node_id)}/undrain"), Node.read)

    def revoke_tokens(self, *, sub: str | None = None, jti: str | None = None) -> bool:
        """Revoke all live tokens of a subject that exist now (``sub``), or one token by its id (``jti``).

        Returns ``True`` if gateways have been notified, so that open connections end now; ``False`` if Redis is away, and
        they end once it is back. Revoking again is safe.
        """
        body = {name: value for name, value in {"sub": sub, "jti": jti}.items() if value is not None}
        answer = self._request("POST", "/v1/tokens/revoke", body=body, content_type=JSON)
        return read(answer, lambda body: bool(body["immediate"]))


def _event(event_id: str) -> str:
    return f"/v1/events/{quote(event_id, safe='')}"


def _node(node_id: str) -> str:
    return f"/v1/workers/{quote(node_id, safe='')}"


def _nodes(body: Any) -> list[Node]:
    return list(map(Node.read, body["items"]))


def _attempts(body: Any) -> list[Attempt]:
    return list(map(Attempt.read, body["items"]))


def _steps(body: Any) -> list[Step]:
    return list(map(Step.read, body["items"]))


def _event_groups(body: Any) -> list[EventGroup]:
    return list(map(EventGroup.read, body["items"]))


def _groups(body: Any) -> list[DeadLetterGroup]:
    return list(map(DeadLetterGroup.read, body["items"]))
