"""A million events through the whole stack in one go: once each, at a bounded age, in bounded memory."""

import contextlib
import http.client
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from holdfast.local.stack import Stack

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="memory of processes is read from /proc"),
]

EVENTS = int(os.environ.get("HOLDFAST_MILLION", "1000000"))

BATCH = 500

SENDERS = 4

BACKLOG_SECONDS = 20
"""Ingest refuses events while the oldest one that is due is older."""

LOOK_SECONDS = 5
"""After which ingest has seen for sure how old the backlog is: it looks once a second. What it let in before then may wait
for many times the limit: all of that was accepted faster than it can be processed."""

PATIENCE_SECONDS = 3000

GROWTH = 1.3
"""Of a process's memory between the second tenth of the run and its end: caches fill, and a leak would be far more."""

SLACK_BYTES = 24 * 1024 * 1024


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    settings = {
        "HOLDFAST_HANDLERS": "million_handlers:handlers",
        "HOLDFAST_BACKLOG_LIMIT_SECONDS": str(BACKLOG_SECONDS),
    }
    with Stack(tmp_path / "stack", settings=settings, python_path=str(Path(__file__).parent)) as made:
        made.postgres.execute("CREATE TABLE effect (event_id uuid)", database="holdfast")
        yield made


class Senders:
    """Post batches until all events are accepted; a 503 is waited out, as its Retry-After says."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._numbers = itertools.count()
        self.accepted = 0
        self.refused = 0
        self.failures: list[str] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(SENDERS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def is_done(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def _send(self) -> None:
        connection = http.client.HTTPConnection(urlsplit(self._stack.ingest_url).netloc, timeout=60)
        headers = {
            "Authorization": f"Bearer {self._stack.api_key}",
            "Content-Type": "application/cloudevents-batch+json",
        }
        with contextlib.closing(connection):
            while (number := next(self._numbers)) * BATCH < EVENTS and not self.failures:
                count = min(BATCH, EVENTS - number * BATCH)
                body = json.dumps([_event(f"{number}-{index}") for index in range(count)])
                while not self._post(connection, body, headers):
                    pass

    def _post(self, connection: http.client.HTTPConnection, body: str, headers: dict[str, str]) -> bool:
        connection.request("POST", "/v1/events", body, headers)
        answer = connection.getresponse()
        told = json.loads(answer.read())
        if answer.status == 503 and told["code"] == "backlog":
            with self._lock:
                self.refused += 1
            time.sleep(float(answer.headers["Retry-After"]))
            return False
        if answer.status != 202:
            self.failures.append(f"{answer.status}: {told}")
            return True
        with self._lock:
            self.accepted += told["accepted"]
        return True


def _event(identifier: str) -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": identifier, "source": "/million", "type": "million", "audience": "soak",
        "data": {"text": "x" * 300},
    }  # fmt: skip


class Memory:
    """Resident bytes of each process of the stack, by what it is, now and then."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.seen: dict[str, list[int]] = {}

    def look(self) -> None:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if self._folder not in (process / "environ").read_text(errors="replace"):
                    continue
                words = (process / "cmdline").read_text().replace("\0", " ").split()
                resident = int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            except OSError:
                continue  # it has just ended
            name = next((word for word in words if word.startswith("holdfast.")), "")
            if name:
                self.seen.setdefault(f"{name} {process.name}", []).append(resident)


def test_a_million_events_are_processed_once_each_in_bounded_memory(
    stack: Stack, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    senders, memory, ages, accepted_amid = Senders(stack), Memory(str(stack.folder)), list[float](), list[int]()
    began = time.monotonic()
    senders.start()

    processed = 0
    while processed < EVENTS:
        assert time.monotonic() - began < PATIENCE_SECONDS, f"{processed} of {EVENTS} processed"
        assert not senders.failures, senders.failures[0]
        time.sleep(5)
        processed = _number(stack, "SELECT count(*) FROM processed_event_log")
        ages.append(_number(stack, OLDEST))
        if ages[-1] > BACKLOG_SECONDS + LOOK_SECONDS:
            accepted_amid.append(_number(stack, f"SELECT count(*) FROM event WHERE id > '{_first_id(seconds_ago=1)}'"))  # noqa: S608
        memory.look()
        with capsys.disabled():
            print(f"{processed:>9,} processed, the oldest is {ages[-1]:.0f} s old", file=sys.stderr)  # noqa: T201

    seconds = time.monotonic() - began
    with capsys.disabled():
        figures = f"{EVENTS / seconds:,.0f} events/s, {senders.refused} batches sent again, oldest {max(ages):.0f} s"
        print(figures, *_growth(memory), sep="\n", file=sys.stderr)  # noqa: T201
    record_property("figures", figures)
    assert senders.is_done
    assert senders.accepted == EVENTS
    assert _number(stack, "SELECT count(*) FROM effect") == EVENTS
    assert _number(stack, "SELECT count(DISTINCT event_id) FROM effect") == EVENTS
    assert _number(stack, "SELECT count(*) FROM processing_state WHERE state <> 'processed'") == 0
    assert max(accepted_amid, default=0) == 0, "accepted although the oldest event waited for longer than the limit"
    for name, sizes in memory.seen.items():
        early = max(sizes[: max(2, len(sizes) // 5)])
        assert max(sizes) < early * GROWTH + SLACK_BYTES, f"{name} has grown: {sizes}"


OLDEST = """
SELECT coalesce(extract(epoch FROM now() - min(available_at)), 0) FROM processing_state WHERE state IN ('queued', 'failed')
"""


def _number(stack: Stack, statement: str) -> int:
    return int(float(stack.postgres.execute(statement, database="holdfast")))


def _first_id(*, seconds_ago: float) -> UUID:
    """The smallest UUIDv7 of that moment: ids begin with the milliseconds since 1970 (RFC 9562, 5.7)."""
    return UUID(f"{int((time.time() - seconds_ago) * 1000):012x}70008000000000000000")


def _growth(memory: Memory) -> list[str]:
    return [f"{name}: {sizes[0] >> 20} → {max(sizes) >> 20} MiB" for name, sizes in sorted(memory.seen.items())]
