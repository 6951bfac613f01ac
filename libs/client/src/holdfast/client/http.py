"""The HTTP side: send, get, wait, and live tokens."""

import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self
from uuid import uuid4

import httpx

from holdfast.client.errors import ApiProblem, Unreachable, WaitTimedOut

__all__ = ["Client", "LiveToken", "Sent"]

ATTEMPTS = 5
FIRST_WAIT_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 5.0
RETRIED = frozenset({429, 502, 503, 504})
"""Answers after which the same request may well succeed. Sending is safe to repeat: the event has an identity."""

OPEN_STATES = frozenset({"queued", "processing", "failed"})
POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Sent:
    """The answer to an accepted event. ``is_duplicate``: it was here before, and nothing changed."""

    event_id: str
    state: str
    version: int
    is_duplicate: bool
    is_enqueued: bool


@dataclass(frozen=True, slots=True)
class LiveToken:
    """``expires_at`` is in Unix seconds; ``live_url`` is where to connect, if the API knows."""

    token: str
    expires_at: int
    live_url: str | None


class Client:
    """A connection to ingest. Safe to share between threads; close it, or use it in a ``with`` block.

    Args:
        base_url: such as ``https://events.example.com``.
        api_key: ``hf_…``.
    """

    def __init__(self, base_url: str, api_key: str, *, timeout_seconds: float = 10.0) -> None:
        self._base_url = base_url.rstrip("/")
        self._http = httpx.Client(
            base_url=self._base_url, timeout=timeout_seconds, headers={"Authorization": f"Bearer {api_key}"}
        )  # fmt: skip

    def send(self, event: Mapping[str, Any]) -> Sent:
        """Send one CloudEvent, given as its attributes and ``data``; what is missing of id, source and time is filled in.

        Raises:
            ApiProblem: it was not accepted.
            Unreachable: no answer. Send the same event again, with the same id: it will not be doubled.
        """
        filled = {
            "specversion": "1.0",
            "id": uuid4().hex,
            "source": "/holdfast/client",
            "time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            **event,
        }
        answer = self._request("POST", "/v1/events", json=filled, content_type="application/cloudevents+json")
        return Sent(
            answer["event_id"], answer["state"], answer["version"], answer["duplicate"], answer["enqueued"]
        )  # fmt: skip

    def get(self, event_id: str, *, include: Iterable[str] = ()) -> dict[str, Any]:
        """An event and where it stands; ``include`` may name ``data`` and ``timeline``.

        Raises:
            ApiProblem: 404 for an event that is not there, or not this tenant's.
            Unreachable: no answer.
        """
        return self._request("GET", f"/v1/events/{event_id}", params={"include": ",".join(include)})

    def wait(self, event_id: str, *, timeout_seconds: float) -> dict[str, Any]:
        """Ask until the event is processed, dead or discarded.

        Raises:
            WaitTimedOut: it is still open.
            ApiProblem, Unreachable: as for :meth:`get`.
        """
        deadline = time.monotonic() + timeout_seconds
        while (view := self.get(event_id))["state"] in OPEN_STATES:
            if time.monotonic() > deadline:
                raise WaitTimedOut(f"event {event_id} is still {view['state']} after {timeout_seconds} s")
            time.sleep(POLL_SECONDS)
        return view

    def token(self, topics: Iterable[str], *, sub: str | None = None, ttl_seconds: int | None = None) -> LiveToken:
        """A live token for topics (or grants such as ``event:*``).

        Raises:
            ApiProblem: a topic that can not be, or is another tenant's.
            Unreachable: no answer.
        """
        wanted = {"topics": list(topics), "sub": sub, "ttl_seconds": ttl_seconds}
        body = {name: value for name, value in wanted.items() if value is not None}
        answer = self._request("POST", "/v1/tokens", json=body, content_type="application/json")
        return LiveToken(answer["token"], answer["expires_at"], answer.get("live_url"))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _request(
        self, method: str, path: str, *, json: Any = None, params: Any = None, content_type: str | None = None
    ) -> dict[str, Any]:
        headers = {"Content-Type": content_type} if content_type else None
        wait_seconds = FIRST_WAIT_SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            is_last = attempt == ATTEMPTS
            try:
                answer = self._http.request(method, path, json=json, params=params, headers=headers)
            except httpx.TransportError as exc:
                if is_last:
                    raise Unreachable(
                        f"no answer from {self._base_url} ({type(exc).__name__}); is it running?"
                    ) from exc
            else:
                if answer.is_success:
                    body: dict[str, Any] = answer.json()
                    return body
                if is_last or answer.status_code not in RETRIED:
                    raise _problem(answer)
                wait_seconds = max(wait_seconds, _retry_after(answer))
            time.sleep(min(wait_seconds, LONGEST_WAIT_SECONDS) * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
            wait_seconds *= 2
        raise AssertionError("the last attempt returns or raises")


def _problem(answer: httpx.Response) -> ApiProblem:
    try:
        body = answer.json()
    except ValueError:
        body = {"detail": answer.text[:200]}
    return ApiProblem(answer.status_code, body if isinstance(body, dict) else {})


def _retry_after(answer: httpx.Response) -> float:
    try:
        return float(answer.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0
