"""Load at a steady, bounded rate while something is broken: it measures nothing, and leaves the machine some air."""

import threading
from typing import Self
from uuid import uuid4

from tests.chaos.producers import Producers, event

from holdfast.client import ApiProblem, Client, Unreachable
from holdfast.local.lines import PLANTED

__all__ = ["Load", "send"]

THREADS = 2
PAUSE_SECONDS = 0.04


def send(producers: Producers, type_: str, count: int = 1, **data: object) -> list[str]:
    """Send events one after the other; their ids, oldest first."""
    answers = producers.post_all([event(type_, data) for _ in range(count)], connections=1)
    assert {answer.status for answer in answers} == {202}
    return [answer.event_id for answer in answers]


class Load:
    """Sends events within a ``with`` block. One that is not accepted, or whose answer is lost, is sent again until it is."""

    def __init__(self, url: str, api_key: str, producers: Producers, type_: str, **data: object) -> None:
        self.accepted: list[str] = []
        self._producers = producers
        self._client = Client(url, api_key)
        self._event = {"type": type_, "data": {"planted": PLANTED} | data}
        self._is_stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(THREADS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopping.set()
        for thread in self._threads:
            thread.join()
        self._client.close()
        self._producers.accepted.update(self.accepted)

    def _run(self) -> None:
        while not self._is_stopping.wait(PAUSE_SECONDS):
            identity = uuid4().hex
            while not self._send(identity):
                self._is_stopping.wait(PAUSE_SECONDS)

    def _send(self, identity: str) -> bool:
        try:
            self.accepted.append(self._client.send({**self._event, "id": identity}).event_id)
        except (ApiProblem, Unreachable):
            return False
        return True
