"""The HTTP side: send, get, wait, and live tokens."""

import json
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import quote
from uuid import uuid4

import httpx

from holdfast.client.answers import problem, read
from holdfast.client.errors import Unreachable, WaitTimedOut
from holdfast.client.operations import Operations
from holdfast.client.retry import ATTEMPTS, LONGEST_ASKED_SECONDS, backoff_seconds, retry_after_seconds

__all__ = ["Client", "LiveToken", "Sent"]

OPEN_STATES = frozenset({"queued", "processing", "failed"})
POLL_SECONDS = (0.05, 1.0)
"""First and longest time between two looks at an event that is waited for; it grows by half each time."""


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


class Client(Operations):
    """A connection to ingest. Safe to share between threads; close it, or use it in a ``with`` block.

    Requests are repeated up to four times, with growing jittered pauses, when nobody answers or the answer is 429, 502, 503
    or 504, never before the ``Retry-After`` of such an answer. All of them are safe to repeat: events have an identity, and
    requests that act on them a key.

    Args:
        base_url: such as ``https://events.example.com``.
        api_key: ``hf_…``.
        timeout_seconds: for one attempt to connect, to write, and to read each.

    Raises:
        Unreachable: ``base_url`` is no address, or ``api_key`` can not be sent.
    """

    def __init__(self, base_url: str, api_key: str, *, timeout_seconds: float = 10.0) -> None:
        self._base_url = _checked_url(base_url)
        headers = {"Authorization": f"Bearer {_checked_key(api_key)}"}
        self._http = httpx.Client(base_url=self._base_url, timeout=timeout_seconds, headers=headers)

    def send(self, event: Mapping[str, Any]) -> Sent:
        """Send one CloudEvent, given as its attributes and ``data``; what is missing of id, source and time is filled in.

        Raises:
            ApiProblem: it was not accepted.
            Unreachable: no answer. Send the same event again, with the same id: it will not be doubled.
            ValueError, TypeError: the event is nothing that JSON can say.
        """
        filled = {
            "specversion": "1.0",
            "id": uuid4().hex,
            "source": "/holdfast/client",
            "time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            **{name: value for name, value in event.items() if value is not None or name == "data"},
        }
        answer = self._request("POST", "/v1/events", body=filled, content_type="application/cloudevents+json")
        return read(answer, _sent)

    def get(self, event_id: str, include: Iterable[str] = ()) -> dict[str, Any]:
        """An event and where it stands; ``include`` may name ``data``, ``attempts`` and ``timeline``.

        Raises:
            ApiProblem: 404 for an event that is not there, or not this tenant's.
            Unreachable: no answer.
        """
        path = f"/v1/events/{quote(event_id, safe='')}"
        return read(self._request("GET", path, params={"include": ",".join(include)}), _view)

    def wait(self, event_id: str, timeout_seconds: float) -> dict[str, Any]:
        """Ask until the event is processed, dead or discarded; the answer is that of :meth:`get`.

        Raises:
            WaitTimedOut: it is still open.
            ApiProblem, Unreachable: as for :meth:`get`.
        """
        deadline = time.monotonic() + timeout_seconds
        pause, longest = POLL_SECONDS
        while (view := self.get(event_id))["state"] in OPEN_STATES:
            left_seconds = deadline - time.monotonic()
            if left_seconds <= 0:
                raise WaitTimedOut(f"event {event_id} is still {view['state']} after {timeout_seconds:g} s")
            time.sleep(min(pause, left_seconds))
            pause = min(pause * 1.5, longest)
        return view

    def token(self, topics: Iterable[str], *, sub: str | None = None, ttl_seconds: int | None = None) -> LiveToken:
        """A live token for topics (or grants such as ``event:*``).

        Raises:
            ApiProblem: a topic that can not be, or is another tenant's.
            Unreachable: no answer.
        """
        wanted = {"topics": list(topics), "sub": sub, "ttl_seconds": ttl_seconds}
        body = {name: value for name, value in wanted.items() if value is not None}
        answer = self._request("POST", "/v1/tokens", body=body, content_type="application/json")
        return read(answer, _live_token)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
        content = None if body is None else _json(body)
        sent = {**(headers or {}), **({"Content-Type": content_type} if content_type and body is not None else {})}
        for attempt in range(1, ATTEMPTS + 1):
            is_last = attempt == ATTEMPTS
            asked_seconds = 0.0
            try:
                answer = self._http.request(method, path, content=content, params=params, headers=sent)
            except httpx.RequestError as exc:
                if is_last or not isinstance(exc, httpx.TransportError):
                    raise Unreachable(f"no answer from {self._base_url} ({_cause(exc)}); is it running?") from exc
            else:
                if answer.is_success:
                    return answer
                refusal = problem(answer)
                asked_seconds = retry_after_seconds(answer.headers)
                if is_last or not refusal.is_temporary or asked_seconds > LONGEST_ASKED_SECONDS:
                    raise refusal
            time.sleep(asked_seconds + backoff_seconds(attempt, random.random()))  # noqa: S311 (jitter)
        raise AssertionError("the last attempt returns or raises")


def _checked_url(text: str) -> str:
    try:
        url = httpx.URL(text)
        is_address = url.scheme in ("http", "https") and bool(url.host)
    except (httpx.InvalidURL, TypeError):
        is_address = False
    if not is_address:
        raise Unreachable(f"{text!r} is no address of Holdfast; write it like https://events.example.com")
    return text.rstrip("/")


def _checked_key(text: str) -> str:
    key = text.strip()
    if not key.isascii() or not key.isprintable():
        raise Unreachable("the API key has characters that no key has; copy it again, whole and without the dots")
    return key


def _json(body: Any) -> bytes:
    """UTF-8; what has no UTF-8 (half a surrogate pair) is escaped, so that the API can say what is wrong with it."""
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()


def _sent(body: Any) -> Sent:
    return Sent(body["event_id"], body["state"], body["version"], body["duplicate"], body["enqueued"])


def _view(body: Any) -> dict[str, Any]:
    return {**body, "state": body["state"]}


def _live_token(body: Any) -> LiveToken:
    return LiveToken(body["token"], body["expires_at"], body.get("live_url"))


def _cause(exc: httpx.RequestError) -> str:
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
