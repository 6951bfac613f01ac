"""Clients that hold ingest's port up."""

import contextlib
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from tests.chaos.stacks import Replica, replica
from tests.hostile.sockets import (
    UNFINISHED_BODY,
    UNFINISHED_CHUNKS,
    UNFINISHED_HEAD,
    answer_of,
    crowd,
    drip,
    open_socket,
)

from holdfast.local.fixtures import Eventually
from holdfast.local.lines import PLANTED
from holdfast.local.stack import Stack

pytestmark = pytest.mark.xdist_group("hostile-edge")

REQUEST_SECONDS = 3


@pytest.fixture(scope="module")
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def ingest(many_descriptors: None, hostile_stack: Stack) -> Iterator[Replica]:  # noqa: ARG001
    with replica(hostile_stack, "ingest", INGEST_REQUEST_SECONDS=str(REQUEST_SECONDS)) as started:
        yield started


def address_of(ingest: Replica) -> tuple[str, int]:
    parts = urlsplit(ingest.url)
    return parts.hostname or "", parts.port or 0


def post(client: httpx.Client, key: str) -> httpx.Response:
    event = {
        "specversion": "1.0",
        "id": uuid4().hex,
        "source": "/hostile",
        "type": "chaos.plain",
        "data": {"planted": PLANTED},
    }
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/cloudevents+json"}
    return client.post("/v1/events", json=event, headers=headers)


def seconds_of(call: Callable[[], Any]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def test_posts_are_answered_beside_2600_sockets_that_finish_nothing(
    hostile_stack: Stack, ingest: Replica, eventually: Eventually
) -> None:
    address = address_of(ingest)
    with crowd() as hostile, httpx.Client(base_url=ingest.url, timeout=10) as client:
        hostile.add(address, 200, b"P")
        hostile.add(address, 200, UNFINISHED_HEAD)
        hostile.add(address, 200, UNFINISHED_BODY)
        hostile.add(address, 2000)
        took = [seconds_of(lambda: _accepted(client, hostile_stack.api_key)) for _ in range(100)]
        live = seconds_of(lambda: httpx.get(f"{ingest.url}/livez", timeout=10).raise_for_status())
        eventually(lambda: hostile.open_count() == 0, timeout_seconds=REQUEST_SECONDS + 15)

    assert statistics.median(took) < 1
    assert max(took) < REQUEST_SECONDS, "it waited until the others were sent away"
    assert live < REQUEST_SECONDS


def _accepted(client: httpx.Client, key: str) -> None:
    assert post(client, key).status_code == 202


@pytest.mark.parametrize("sent", [UNFINISHED_HEAD, UNFINISHED_BODY, UNFINISHED_CHUNKS])
def test_a_request_that_is_not_finished_is_answered_with_408(ingest: Replica, sent: bytes) -> None:
    with contextlib.closing(open_socket(address_of(ingest), sent)) as connection:
        answer = answer_of(connection, REQUEST_SECONDS + 15)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in answer
    assert b'"code": "request_timeout"' in answer


@pytest.mark.parametrize(
    "sent", [UNFINISHED_HEAD + b"pe: a\r\nX-A: ", UNFINISHED_BODY, UNFINISHED_CHUNKS + b"4000\r\n"]
)
def test_a_byte_at_a_time_buys_no_time(ingest: Replica, sent: bytes) -> None:
    with contextlib.closing(open_socket(address_of(ingest), sent)) as connection:
        answer = drip(connection, b"a" * 1000, every_seconds=0.2, at_most_seconds=REQUEST_SECONDS + 15)

    assert answer.startswith(b"HTTP/1.1 408 ")


BROKEN = {
    "no request line": (b"\x00\x01\r\n\r\n", 400, b"bad_request"),
    "two lengths of a body": (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400,
        b"bad_request",
    ),
    "a broken chunk": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, b"bad_request"),
    "another coding": (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501, b"unsupported_transfer_coding",
    ),
    "a head too large": (b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 200_000, 431, b"head_too_large"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_not_http_is_a_problem_too(hostile_stack: Stack, name: str) -> None:
    sent, status, code = BROKEN[name]
    address = urlsplit(hostile_stack.ingest_url)
    with contextlib.closing(open_socket((address.hostname or "", address.port or 0), sent)) as connection:
        answer = answer_of(connection, 10)

    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"application/problem+json" in answer
    assert code in answer


def test_more_sockets_than_descriptors_keep_nobody_out(
    hostile_stack: Stack,
    launch: Callable[..., Replica],
    many_descriptors: None,  # noqa: ARG001
) -> None:
    ingest = launch("ingest", INGEST_REQUEST_SECONDS="60", INGEST_PROCESSES="1")  # each has descriptors of its own
    pid = ingest.process.pids()[0]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (4200, 4200))
    with crowd() as hostile, httpx.Client(base_url=ingest.url, timeout=10) as client:
        hostile.add(address_of(ingest), 4500)
        assert seconds_of(lambda: _accepted(client, hostile_stack.api_key)) < 5

    logged = [line for line in ingest.process.log.read_text().splitlines() if "too many connections" in line]
    assert len(logged) == 1


@pytest.mark.parametrize("host", ["::1", "[::1]", "::"])
def test_ingest_listens_on_ipv6(hostile_stack: Stack, launch: Callable[..., Replica], host: str) -> None:
    ingest = launch("ingest", INGEST_HOST=host)
    port = urlsplit(ingest.url).port

    with httpx.Client(base_url=f"http://[::1]:{port}", timeout=10) as client:
        assert post(client, hostile_stack.api_key).status_code == 202
