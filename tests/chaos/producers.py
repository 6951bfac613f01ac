"""Producers: events sent over HTTP without the client's retries, from several connections at once."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

from holdfast.local.lines import PLANTED

__all__ = ["Answer", "Producers", "event"]

CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """What a producer was told. ``status`` 0: the connection broke."""

    status: int
    body: dict[str, Any]
    seconds: float

    @property
    def event_id(self) -> str:
        """Of a 202."""
        return str(self.body["event_id"])


def event(type_: str, data: Any = None, **attributes: Any) -> dict[str, Any]:
    """A CloudEvent with an identity of its own."""
    planted = {"planted": PLANTED} | (data or {})
    unique = {"specversion": "1.0", "id": uuid4().hex, "source": "/chaos", "type": type_, "data": planted}
    return unique | attributes


class Producers:
    """Send to one ingest and remember every event that was accepted."""

    def __init__(self, url: str, api_key: str) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/cloudevents+json"}
        self.accepted: set[str] = set()

    def post(self, sent: dict[str, Any]) -> Answer:
        """Send one event, once."""
        return self.post_all([sent], connections=1)[0]

    def post_all(self, events: Sequence[dict[str, Any]], *, connections: int = CONNECTIONS) -> list[Answer]:
        """Send each event once, as fast as so many connections take them; the answers in the order of the events."""
        lanes = [events[start::connections] for start in range(connections)]
        with ThreadPoolExecutor(connections) as pool:
            told = list(pool.map(self._send_lane, lanes))
        return [told[index % connections][index // connections] for index in range(len(events))]

    def post_until(self, is_over: Callable[[], bool], type_: str, *, connections: int = CONNECTIONS) -> list[Answer]:
        """Keep sending new events until told to stop; the answers in no particular order."""

        def send(_: int) -> list[Answer]:
            with self._connection() as client:
                answers = []
                while not is_over():
                    answers.append(self._send(client, event(type_)))
                return answers

        with ThreadPoolExecutor(connections) as pool:
            return [answer for lane in pool.map(send, range(connections)) for answer in lane]

    def _send_lane(self, events: Sequence[dict[str, Any]]) -> list[Answer]:
        with self._connection() as client:
            return [self._send(client, each) for each in events]

    def _connection(self) -> httpx.Client:
        # Without TLS there is nothing to verify, and reading the certificates takes 30 ms.
        return httpx.Client(base_url=self._url, headers=self._headers, timeout=30, verify=False)  # noqa: S501

    def _send(self, client: httpx.Client, sent: dict[str, Any]) -> Answer:
        began = time.monotonic()
        try:
            response = client.post("/v1/events", json=sent)
        except httpx.TransportError:
            return Answer(0, {}, time.monotonic() - began)
        answer = Answer(response.status_code, response.json(), time.monotonic() - began)
        if answer.status == 202:
            self.accepted.add(answer.event_id)
        return answer
