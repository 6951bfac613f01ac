"""Producers: they POST events at a bounded rate and repeat each until they have a definite answer."""

import json
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from .history import Recorder

__all__ = ["AUDIENCES", "Load", "Tenant"]

AUDIENCES = 4
"""Different audiences per tenant."""

PRODUCERS = 3
"""Of each tenant: one waits for an answer while another sends."""

TYPES = {
    "soak.plain": 40, "soak.slow": 15, "soak.flaky": 12, "soak.ordered": 12, "soak.outside": 14, "soak.poison": 4,
    "soak.nobody": 3, "soak.progress": 8, "soak.pool": 4, "soak.parent": 6, "soak.fan": 4, "soak.shared": 6,
    "soak.later": 5, "soak.snooze": 5, "soak.limited": 8, "soak.keyed": 6, "soak.rated": 8, "soak.steps": 8,
    "soak.async": 10, "soak.debounced": 8, "soak.unique": 8,
}  # fmt: skip

WINDOWS: dict[str, dict[str, Any]] = {
    "soak.debounced": {"debounceseconds": 3, "debouncekey": "one", "debouncemaxseconds": 600},
    "soak.unique": {"uniqueseconds": 5, "uniquekey": "one"},
}
"""Attributes of the types with a window: one key for each tenant."""

LATER_SECONDS = (0.5, 6.0)
"""How far ahead events that wait for a time have it."""

PRIORITIES = (None, None, 1, 9)
"""What events ask for."""
SUBJECTS = 2
"""Of each producer's ordered events."""
DUPLICATES = 0.1
"""Share of events that are sent again although they were accepted."""

TIMEOUT_SECONDS = 5.0
PAUSE_SECONDS = (0.2, 2.0)
"""Before repeating a POST: the first time, and at most."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant and its key."""

    name: str
    key: str


class Load:
    """Producers of all tenants, at ``per_second`` events a second together."""

    def __init__(
        self, url: str, tenants: Sequence[Tenant], recorder: Recorder, *, seed: int, per_second: float
    ) -> None:
        self._stop = threading.Event()
        self._give_up = threading.Event()
        interval = len(tenants) * PRODUCERS / per_second
        self._producers = [
            _Producer(url, tenant, recorder, f"{tenant.name}/{number}", seed, interval)
            for tenant in tenants
            for number in range(PRODUCERS)
        ]
        self._pool = ThreadPoolExecutor(len(self._producers), thread_name_prefix="producer")
        self._running: list[Future[None]] = []

    def start(self) -> None:
        """Begin."""
        self._running = [self._pool.submit(each.run, self._stop, self._give_up) for each in self._producers]

    def finish(self, timeout_seconds: float) -> None:
        """Make no more events; wait until those under way are answered, and give up after ``timeout_seconds``."""
        self._stop.set()
        wait(self._running, max(0.0, timeout_seconds))
        self._give_up.set()
        for future in self._running:
            future.result()
        self._pool.shutdown()


class _Producer:
    def __init__(self, url: str, tenant: Tenant, recorder: Recorder, name: str, seed: int, interval: float) -> None:
        self._url = f"{url}/v1/events"
        self._tenant = tenant
        self._recorder = recorder
        self._source = f"/soak/{name}"
        self._draw = random.Random(f"{seed} {name}")
        self._interval = interval
        self._sent: list[dict[str, Any]] = []

    def run(self, stop: threading.Event, give_up: threading.Event) -> None:
        number = 0
        headers = {"Authorization": f"Bearer {self._tenant.key}", "Content-Type": "application/cloudevents+json"}
        with httpx.Client(headers=headers, timeout=TIMEOUT_SECONDS) as http:
            while not stop.wait(self._draw.expovariate(1 / self._interval)):
                if self._sent and self._draw.random() < DUPLICATES:
                    event = self._draw.choice(self._sent[-50:])
                else:
                    number += 1
                    event = self._event(number)
                    self._sent.append(event)
                self._send(http, event, give_up)

    def _event(self, number: int) -> dict[str, Any]:
        type_ = self._draw.choices(list(TYPES), list(TYPES.values()))[0]
        data = {"number": number, "seconds": round(self._draw.uniform(0.2, 1.5), 3), "fails": self._draw.randint(1, 3)}
        more = dict(WINDOWS.get(type_, {}))
        if (priority := self._draw.choice(PRIORITIES)) is not None:
            more["priority"] = priority
        if type_ in ("soak.later", "soak.snooze"):
            data["until"] = round(time.time() + self._draw.uniform(*LATER_SECONDS), 3)
        if type_ == "soak.later":
            more["deliverat"] = datetime.fromtimestamp(data["until"], UTC).isoformat()
        return {
            "specversion": "1.0", "id": str(number), "source": self._source, "type": type_,
            "subject": f"subject-{self._draw.randrange(SUBJECTS)}", "audience": f"user-{self._draw.randrange(AUDIENCES)}",
            "datacontenttype": "application/json", "data": data, **more,
        }  # fmt: skip

    def _send(self, http: httpx.Client, event: dict[str, Any], give_up: threading.Event) -> None:
        """Repeat until the answer is definite, like any producer that must not lose an event."""
        pause, longest = PAUSE_SECONDS
        while True:
            asked_at = time.time()
            status, body = _post(http, self._url, event)
            about = {"tenant": self._tenant.name, "source": event["source"], "ce_id": event["id"], "at": time.time()}
            if status == 202 and "unique_until" in body:
                self._recorder.add("left_out", {**about, "event": body["event_id"], "asked_at": asked_at})
                return
            if status == 202:
                self._recorder.add(
                    "accepted", {**about, "event": body["event_id"], "is_duplicate": body["duplicate"]}
                )  # fmt: skip
                return
            if give_up.is_set() or (400 <= status < 500 and status not in (408, 429)):
                self._recorder.add("refused", {**about, "status": status, "body": body})
                return
            give_up.wait(pause)
            pause = min(2 * pause, longest)


def _post(http: httpx.Client, url: str, event: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and body; status 0 where there was no answer, or no whole one."""
    try:
        answer = http.post(url, content=json.dumps(event))
        return answer.status_code, answer.json() if answer.content else {}
    except (httpx.TransportError, ValueError):
        return 0, {}
