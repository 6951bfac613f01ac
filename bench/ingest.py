"""Load on ``POST /v1/events``: keep-alive connections, each sending one event after the other."""

import http.client
import json
import multiprocessing
import threading
import time
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from holdfast.local.stack import Stack

__all__ = ["measure"]

PROCESSES = 2
CONNECTIONS = 16
"""In each process."""

BATCH_CONNECTIONS = 4
"""The same for batches, which keep a server busier."""


def measure(stack: Stack, *, seconds: float, batch: int = 1) -> float:
    """Accepted events a second over ``seconds``, one a request, or ``batch`` of them.

    Raises:
        RuntimeError: an event was not accepted.
    """
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        counts = pool.starmap(_load, [(stack.ingest_url, stack.api_key, seconds, batch)] * PROCESSES)
    return sum(counts) / seconds


def _load(url: str, api_key: str, seconds: float, batch: int) -> int:
    connections = CONNECTIONS if batch == 1 else BATCH_CONNECTIONS
    counts = [0] * connections
    failures: list[str] = []

    def work(number: int) -> None:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
        headers = {
            "Authorization": f"Bearer {api_key}",
            "Content-Type": f"application/cloudevents{'' if batch == 1 else '-batch'}+json",
        }
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not failures:
            connection.request("POST", "/v1/events", _body(batch), headers)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 202:
                failures.append(f"{answer.status}: {body[:200]!r}")
            counts[number] += batch
        connection.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(failures[0])
    return sum(counts)


def _body(batch: int) -> str:
    return json.dumps(_event() if batch == 1 else [_event() for _ in range(batch)])


def _event() -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": uuid4().hex, "source": "/bench", "type": "bench.ingest", "audience": "bench",
        "data": {"text": "x" * 400},
    }  # fmt: skip
