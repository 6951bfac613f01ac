"""Operators: they replay, discard and cancel events while everything breaks, and repeat each request until it is answered."""

import random
import threading
import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import httpx

from .history import Recorder
from .load import PAUSE_SECONDS, TIMEOUT_SECONDS, Tenant

__all__ = ["Operators"]

PER_SECOND = 0.5
"""Requests of each operator."""

WISHES = {
    ("replay", "dead"): 4, ("discard", "dead"): 2, ("replay", "processed"): 3, ("discard", "failed"): 1,
    ("cancel", "processing"): 3, ("cancel", "queued"): 1,
}  # fmt: skip
"""What is asked for, of events in which state, and how often."""

FORGETFUL = 0.4
"""Share of requests that are asked once more although they were answered, as if the answer had been lost."""

FORGETS_SECONDS = 3.0
"""Longest time until then: the event may be processed, or dead again, by that time."""

ORDERED = "soak.ordered"
"""Left alone: what is replayed runs after younger events of its subject, as it should."""


class Operators:
    """One for each tenant."""

    def __init__(self, url: str, tenants: Sequence[Tenant], recorder: Recorder, *, seed: int) -> None:
        self._stop = threading.Event()
        self._give_up = threading.Event()
        self._threads = [
            threading.Thread(target=_Operator(url, tenant, recorder, seed).run, args=(self._stop, self._give_up))
            for tenant in tenants
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def finish(self, timeout_seconds: float) -> None:
        """Ask for nothing more; wait until what was asked is answered, and give up after ``timeout_seconds``."""
        self._stop.set()
        deadline = time.monotonic() + timeout_seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._give_up.set()
        for thread in self._threads:
            thread.join()


class _Operator:
    def __init__(self, url: str, tenant: Tenant, recorder: Recorder, seed: int) -> None:
        self._url = f"{url}/v1/events"
        self._tenant = tenant
        self._recorder = recorder
        self._draw = random.Random(f"{seed} operator {tenant.name}")

    def run(self, stop: threading.Event, give_up: threading.Event) -> None:
        headers = {"Authorization": f"Bearer {self._tenant.key}"}
        with httpx.Client(headers=headers, timeout=TIMEOUT_SECONDS) as http:
            while not stop.wait(self._draw.expovariate(PER_SECOND)):
                action, state = self._draw.choices(list(WISHES), list(WISHES.values()))[0]
                if (event := self._choose(http, state)) is not None:
                    self._act(http, action, event, give_up)

    def _choose(self, http: httpx.Client, state: str) -> dict[str, Any] | None:
        status, body = _asked(http, "GET", f"{self._url}?state={state}&limit=20")
        found = [each for each in body.get("items", []) if each["event"]["type"] != ORDERED]
        return self._draw.choice(found) if status == 200 and found else None

    def _act(self, http: httpx.Client, action: str, event: dict[str, Any], give_up: threading.Event) -> None:
        about = {"tenant": self._tenant.name, "action": action, "event": event["event_id"], "key": uuid4().hex}
        self._recorder.add("asked", {**about, "at": time.time()})
        self._ask(http, about, event, give_up)
        if self._draw.random() < FORGETFUL:
            give_up.wait(self._draw.uniform(0.0, FORGETS_SECONDS))
            self._ask(http, about, event, give_up)

    def _ask(self, http: httpx.Client, about: dict[str, Any], event: dict[str, Any], give_up: threading.Event) -> None:
        """With one key, however often the answer is lost."""
        action, key = about["action"], about["key"]
        pause, longest = PAUSE_SECONDS
        while not give_up.is_set():
            status, body = _asked(http, "POST", f"{self._url}/{event['event_id']}/{action}", key)
            if status in (202, 409):
                self._note(about, event, status, body)
                return
            if 400 <= status < 500 and status not in (408, 429):
                self._recorder.add(
                    "refused", {**about, "source": event["event"]["source"], "ce_id": key, "status": status}
                )
                return
            give_up.wait(pause)
            pause = min(2 * pause, longest)

    def _note(self, about: dict[str, Any], event: dict[str, Any], status: int, body: dict[str, Any]) -> None:
        answer = {"status": status, "answered": body.get("event_id"), "is_duplicate": body.get("duplicate")}
        self._recorder.add("answered", {**about, **answer, "at": time.time()})
        if status == 202 and body["event_id"] != about["event"]:
            copy = {"tenant": about["tenant"], "source": event["event"]["source"], "event": body["event_id"]}
            identity = f"replay:{about['event']}:{about['key']}"
            self._recorder.add(
                "accepted", {**copy, "ce_id": identity, "is_duplicate": body["duplicate"], "at": time.time()}
            )


def _asked(http: httpx.Client, method: str, url: str, key: str = "") -> tuple[int, dict[str, Any]]:
    """Status and body; status 0 where there was no answer, or no whole one."""
    try:
        answer = http.request(method, url, headers={"Idempotency-Key": key} if key else {})
        return answer.status_code, answer.json() if answer.content else {}
    except (httpx.TransportError, ValueError):
        return 0, {}
