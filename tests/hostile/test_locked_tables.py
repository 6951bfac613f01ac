"""Liveness and readiness while work cannot go on."""

import contextlib
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from uuid import uuid4

import httpx
import psycopg2
import pytest

from holdfast.local.fixtures import Eventually
from holdfast.local.stack import Stack

pytestmark = pytest.mark.xdist_group("hostile-edge")

WORKERS = ("ingest", "processor", "maintenance")


@contextlib.contextmanager
def locked(stack: Stack, table: str) -> Iterator[None]:
    connection = psycopg2.connect(stack.database_url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        connection.close()


def status(url: str) -> tuple[int, float]:
    began = time.monotonic()
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 (an address of our own)
            return answer.status, time.monotonic() - began
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, time.monotonic() - began


def post(stack: Stack) -> None:
    event = {"specversion": "1.0", "id": uuid4().hex, "source": "/hostile", "type": "chaos.plain", "data": {}}
    headers = {"Authorization": f"Bearer {stack.api_key}", "Content-Type": "application/cloudevents+json"}
    with contextlib.suppress(httpx.TransportError):
        httpx.post(f"{stack.ingest_url}/v1/events", json=event, headers=headers, timeout=30)


@pytest.mark.parametrize("table", ["processing_state", "event"])
def test_a_locked_table_shows_in_readiness_and_not_in_liveness(
    hostile_stack: Stack, table: str, eventually: Eventually
) -> None:
    with locked(hostile_stack, table):
        posts = [threading.Thread(target=post, args=(hostile_stack,)) for _ in range(40)]
        for thread in posts:
            thread.start()
        urls = [hostile_stack.ingest_url, *(hostile_stack.metrics_url(name) for name in WORKERS)]
        ready = [status(f"{url}/readyz") for url in urls]
        live = [status(f"{url}/livez") for url in urls]
    for thread in posts:
        thread.join()

    assert [code for code, _ in ready] == [503] * len(urls)
    assert max(seconds for _, seconds in ready) < 8
    assert [code for code, _ in live] == [200] * len(urls)
    assert max(seconds for _, seconds in live) < 3
    eventually(lambda: all(status(f"{url}/readyz")[0] == 200 for url in urls))
