"""The HTTP side: send events, read them, wait for them, and issue live tokens."""

import json
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import quote
from uuid import uuid4

import httpx

from holdfast.client.answers import problem, read
from holdfast.client.errors import Unreachable, WaitTimedOut
from holdfast.client.events import StoredEvent
from holdfast.client.managing import Managing
from holdfast.client.operations import Operations
from holdfast.client.retry import ATTEMPTS, MAX_RETRY_AFTER_SECONDS, backoff_seconds, retry_after_seconds

__all__ = ["Client", "LiveToken", "Sent"]

OPEN_STATES = frozenset({"queued", "processing", "failed"})
POLL_SECONDS = (0.05, 1.0)
"""First and longest pause between two requests of :meth:`Client.wait`; each pause is half as long again as the last."""


@dataclass(frozen=True, slots=True)
class Sent:
    """The answer to an accepted event."""

    event_id: str
    """The UUID that Holdfast gave the event."""
    state: str
    version: int
    is_duplicate: bool
    """The event was accepted earlier, and nothing changed now."""
    is_enqueued: bool
    """A processor has been notified; otherwise it finds the event by itself, a little later."""
    unique_until: str | None = None
    """Until when it is a duplicate by its ``uniquekey``; ``event_id`` is the first one's, and nothing was recorded."""


@dataclass(frozen=True, slots=True)
class LiveToken:
    """A live token, and where to use it."""

    token: str = field(repr=False)
    expires_at: int
    """Unix seconds."""
    live_url: str | None
    """The gateway's address; ``None`` if the API does not know it."""


class Client(Operations, Managing):
    """A connection to ingest. Threads may share it; close it, or use it in a ``with`` block.

    A request without an answer, or with the answer 429, 502, 503 or 504, is repeated up to four times, after growing
    jittered pauses and never before the answer's ``Retry-After``. Repeating is safe: events have an identity, and replays
    and discards an ``Idempotency-Key``.

    Args:
        base_url: such as ``https://events.example.com``.
        api_key: ``hf_…``.
        timeout_seconds: longest wait to connect, to write and to read, each on its own, in each attempt.

    Raises:
        Unreachable: ``base_url`` is not an HTTP address, or ``api_key`` has characters that no key has.
    """

    def __init__(self, base_url: str, api_key: str, *, timeout_seconds: float = 10.0) -> None:
        self._base_url = _checked_url(base_url)
        headers = {"Authorization": f"Bearer {_checked_key(api_key)}"}
        self._http = httpx.Client(base_url=self._base_url, timeout=timeout_seconds, headers=headers)

    def send(self, event: Mapping[str, Any]) -> Sent:
        """Send one CloudEvent: its attributes and ``data``. A missing id, source or time is filled in.

        Raises:
            ApiProblem: it was not accepted.
            Unreachable: no answer. Send the same event again, with the same id and source: it is recorded once.
            ValueError, TypeError: JSON cannot represent the event.
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

    def get(self, event_id: str, include: Iterable[str] = ()) -> StoredEvent:
        """An event and where it stands; ``include`` may name ``data``, ``attempts`` and ``timeline``.

        Raises:
            ApiProblem: 404 if there is no such event, or if it is another tenant's.
            Unreachable: no answer.
        """
        path = f"/v1/events/{quote(event_id, safe='')}"
        return read(self._request("GET", path, params={"include": ",".join(include)}), StoredEvent.read)

    def data(self, event_id: str) -> bytes | None:
        """The data of an event, byte by byte as it was sent; ``None`` for an event without data.

        ``get(…, include=["data"])`` has it parsed: numbers are Python's by then, and rounded where floats are.

        Raises:
            ApiProblem, Unreachable: as for :meth:`get`.
        """
        answer = self._request("GET", f"/v1/events/{quote(event_id, safe='')}/data")
        return None if answer.status_code == httpx.codes.NO_CONTENT else answer.content

    def wait(self, event_id: str, timeout_seconds: float) -> StoredEvent:
        """Poll until the event is processed, dead or discarded, and return it as :meth:`get` does.

        Raises:
            WaitTimedOut: it is still queued, processing or failed after ``timeout_seconds``.
            ApiProblem, Unreachable: as for :meth:`get`.
        """
        deadline = time.monotonic() + timeout_seconds
        pause, longest = POLL_SECONDS
        while (event := self.get(event_id)).state in OPEN_STATES:
            left_seconds = deadline - time.monotonic()
            if left_seconds <= 0:
                raise WaitTimedOut(f"event {event_id} is still {event.state} after {timeout_seconds:g} s")
            time.sleep(min(pause, left_seconds))
            pause = min(pause * 1.5, longest)
        return event

    def token(self, topics: Iterable[str], *, sub: str | None = None, ttl_seconds: int | None = None) -> LiveToken:
        """A live token for topics, or for grants such as ``event:*``.

        Args:
            topics: at most 64.
            sub: whose token it is; the API key's if ``None``.
            ttl_seconds: how long it is valid, from 10; the API's default, 900, if ``None``.

        Raises:
            ApiProblem: a topic is malformed or another tenant's.
            Unreachable: no answer.
        """
        fields = {"topics": list(topics), "sub": sub, "ttl_seconds": ttl_seconds}
        body = {name: value for name, value in fields.items() if value is not None}
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
            delay_seconds = 0.0
            try:
                answer = self._http.request(method, path, content=content, params=params, headers=sent)
            except httpx.RequestError as exc:
                if is_last or not isinstance(exc, httpx.TransportError):
                    raise Unreachable(f"no answer from {self._base_url} ({_cause(exc)}); is it running?") from exc
            else:
                if answer.is_success:
                    return answer
                refusal = problem(answer)
                delay_seconds = retry_after_seconds(answer.headers)
                if is_last or not refusal.is_temporary or delay_seconds > MAX_RETRY_AFTER_SECONDS:
                    raise refusal
            time.sleep(delay_seconds + backoff_seconds(attempt, random.random()))  # noqa: S311 (jitter)
        raise AssertionError("the last attempt returns or raises")


def _checked_url(text: str) -> str:
    try:
        url = httpx.URL(text)
        is_address = url.scheme in ("http", "https") and bool(url.host)
    except (httpx.InvalidURL, TypeError):
        is_address = False
    if not is_address:
        raise Unreachable(f"{text!r} is not an address of Holdfast; write it like https://events.example.com")
    return text.rstrip("/")


def _checked_key(text: str) -> str:
    key = text.strip()
    if not key.isascii() or not key.isprintable():
        raise Unreachable("the API key has characters that no key has; copy all of it again, without dots at the end")
    return key


def _json(body: Any) -> bytes:
    """UTF-8. Half a surrogate pair, which has no UTF-8, is escaped, so that the API can name the fault."""
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()


def _sent(body: Any) -> Sent:
    return Sent(
        body["event_id"], body["state"], body["version"], body["duplicate"], body["enqueued"], body.get("unique_until")
    )


def _live_token(body: Any) -> LiveToken:
    return LiveToken(body["token"], body["expires_at"], body.get("live_url"))


def _cause(exc: httpx.RequestError) -> str:
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
