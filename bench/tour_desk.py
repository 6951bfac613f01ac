"""Where the operator of the tour sits: a stack with a past, the ``holdfast`` command, and the console."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import uuid4

import httpx

from bench.history import make_history
from bench.lived import TENANT, settle_in
from bench.visitor import Visitor
from holdfast.local.stack import Stack

__all__ = ["NAME", "Desk", "open_stack", "prepare"]

Answer = TypeVar("Answer")

NAME = "ann"
"""The name of the key that the operator has."""

HOLDFAST = str(Path(sys.executable).with_name("holdfast"))

SETTINGS = {"HOLDFAST_HANDLERS": "tour_handlers:handlers", "HOLDFAST_LOG_LEVEL": "debug"}
"""Ingest says at debug which events it has accepted."""

LATER = ("processor", "maintenance", "scheduler", "ws-gateway")
"""Services that are started when the history is there."""

QUICK, SLOW = 40, 8

SUBJECT = "customer-1"


class Desk:
    """What an operator has. ``late``: an event that waits for the one before it of its subject."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.key = stack.create_key(TENANT, name=NAME)
        self.console = Visitor(stack.ingest_url, self.key)
        self.late = ""
        self._headers = {"Authorization": f"Bearer {self.key}"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.console.close()

    def command(self, *arguments: str, key: str | None = None) -> str:
        """What ``holdfast`` prints, as a process of its own.

        Raises:
            RuntimeError: its exit status is not 0.
        """
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
        own = {"HOLDFAST_URL": self.stack.ingest_url, "HOLDFAST_LIVE_URL": self.stack.live_url}
        done = subprocess.run(
            [HOLDFAST, *arguments], env=inherited | own | {"HOLDFAST_API_KEY": key or self.key, "NO_COLOR": "1"},
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"holdfast {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def listed(self, *arguments: str) -> list[dict[str, Any]]:
        """The items of a list that ``holdfast`` prints as JSON."""
        return [json.loads(line) for line in self.command(*arguments, "-o", "json").splitlines()]

    def send(self, type_: str, *, count: int = 1, **attributes: Any) -> list[str]:
        """Post events of a type; their event ids."""
        body = [self._event(type_, attributes) for _ in range(count)]
        headers = self._headers | {"Content-Type": "application/cloudevents-batch+json"}
        answer = httpx.post(f"{self.stack.ingest_url}/v1/events", headers=headers, content=json.dumps(body), timeout=30)
        return [each["event_id"] for each in answer.raise_for_status().json()["events"]]

    def ask(self, path: str) -> Any:
        """An answer of the API."""
        return httpx.get(f"{self.stack.ingest_url}{path}", headers=self._headers, timeout=30).raise_for_status().json()

    def state(self, event_id: str) -> str:
        """Where an event stands."""
        return str(self.ask(f"/v1/events/{event_id}")["state"])

    def wait(self, look: Callable[[], Answer], *, what: str, seconds: float = 55.0) -> Answer:
        """Look until the answer is true, as somebody does who watches.

        Raises:
            TimeoutError: it was not, with ``what`` as its text.
        """
        deadline = time.monotonic() + seconds
        while not (answer := look()):
            if time.monotonic() > deadline:
                raise TimeoutError(what)
            time.sleep(0.2)
        return answer

    def log_lines(self, service: str) -> list[dict[str, Any]]:
        """What a service has logged."""
        lines = (self.stack.logs / f"{service}.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    @staticmethod
    def _event(type_: str, attributes: dict[str, Any]) -> dict[str, Any]:
        return {
            "specversion": "1.0", "id": uuid4().hex, "source": "/tour", "type": type_, "data": {"fails": False},
        } | attributes  # fmt: skip


def open_stack(folder: Path, events: int, say: Callable[[str], None]) -> Stack:
    """A stack that runs, with a history of ``events`` that is lived in. The caller stops it."""
    stack = Stack(
        folder, settings=SETTINGS, held=LATER, python_path=str(Path(__file__).parent), is_durable=False, say=say
    )
    stack.start()
    make_history(lambda sql: stack.postgres.execute(sql, database="holdfast"), events, say=say)
    settle_in(lambda sql: stack.postgres.execute(sql, database="holdfast"), names=0)
    for name in LATER:
        stack.resume(name)
    return stack


def prepare(desk: Desk) -> None:
    """A little traffic of the last hour: some slow, and an event of a subject whose first one has failed."""
    quick = desk.send("com.example.ordered", count=QUICK)
    slow = desk.send("tour.slow", count=SLOW)
    [first] = desk.send("tour.ordered", subject=SUBJECT, data={"fails": True})
    desk.wait(lambda: desk.state(first) == "failed", what="the first event of the subject has failed")
    for _ in range(3):
        [desk.late] = desk.send("tour.ordered", subject=SUBJECT)
    desk.wait(lambda: _are_processed(desk, [*quick, *slow]), what="the traffic is processed")
    desk.wait(lambda: desk.ask("/v1/stats")["last_hour"]["processed"] >= QUICK + SLOW, what="the traffic is counted")


def _are_processed(desk: Desk, event_ids: Sequence[str]) -> bool:
    return all(desk.state(each) == "processed" for each in event_ids)
