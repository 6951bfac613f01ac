"""What is lost and what is not when something dies: with a stack of its own, whose parts are killed and stopped."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg2
import pytest

from holdfast.client import Client, Subscribed, UpdateReceived, watch
from holdfast.local.fixtures import Eventually
from holdfast.local.lines import PLANTED
from holdfast.local.stack import Stack

pytestmark = pytest.mark.xdist_group("broken-stack")

HERE = str(Path(__file__).parent)
LEASE_SECONDS = 3
NOT_HELD_UP_SECONDS = 5
"""Far more than a POST takes also on a busy machine; one that waits for a hung Redis takes for ever."""
LOCK = 4242


@pytest.fixture(scope="module")
def stack(server_folder: Path, pooler: Any) -> Iterator[Stack]:
    """A stack for these tests alone; each leaves it as it found it."""
    settings = {
        "HOLDFAST_LEASE_SECONDS": str(LEASE_SECONDS),
        "HOLDFAST_HANDLERS": "handlers:handlers",
        "HOLDFAST_PROCESSOR_PROCESSES": "1",  # the one that a test kills
    }
    with Stack(server_folder / uuid4().hex, settings=settings, python_path=HERE, pooler=pooler) as stack:
        stack.postgres.execute("CREATE TABLE effect (event_id text)", database="holdfast")
        yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.ingest_url, stack.api_key) as client:
        yield client


@pytest.fixture
def post(stack: Stack) -> Callable[..., httpx.Response]:
    """POST one event of a type, once, without the client's retries."""

    def send(type_: str, **attributes: Any) -> httpx.Response:
        event = {
            "specversion": "1.0",
            "id": uuid4().hex,
            "source": "/test",
            "type": type_,
            "data": {"planted": PLANTED},
        }
        event |= attributes
        headers = {"Authorization": f"Bearer {stack.api_key}", "Content-Type": "application/cloudevents+json"}
        return httpx.post(f"{stack.ingest_url}/v1/events", json=event, headers=headers, timeout=10)

    return send


def effects(stack: Stack, event_id: str) -> int:
    counted = stack.postgres.execute(f"SELECT count(*) FROM effect WHERE event_id = '{event_id}'", database="holdfast")  # noqa: S608
    return int(counted)


def waiting_for_the_lock(stack: Stack) -> bool:
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    return stack.postgres.execute(waiting, database="holdfast") != "0"


def test_a_worker_killed_within_a_handler_leaves_one_set_of_effects(
    stack: Stack, client: Client, eventually: Eventually
) -> None:
    with psycopg2.connect(stack.database_url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        event_id = client.send({"type": "test.blocked", "data": {}}).event_id
        eventually(lambda: waiting_for_the_lock(stack), message="the handler did not begin")
        worker = stack.services["processor"].pids()[-1]

        stack.services["processor"].send(signal.SIGKILL, pid=worker)

    view = client.wait(event_id, timeout_seconds=LEASE_SECONDS + 30)
    assert view.state == "processed"
    assert view.attempt == 2
    assert effects(stack, event_id) == 1


def test_redis_stopped_during_a_post_delays_the_event_and_its_updates_and_no_more(
    stack: Stack, client: Client, post: Callable[..., httpx.Response]
) -> None:
    audience = f"user-{uuid4().hex}"
    topic = f"audience:{audience}"
    token = client.token([topic]).token
    stack.redis.stop()
    began = time.monotonic()

    answer = post("test.plain", audience=audience)
    took_seconds = time.monotonic() - began

    stack.redis.start()
    body = answer.json()
    assert (answer.status_code, body["enqueued"]) == (202, False)
    assert took_seconds < NOT_HELD_UP_SECONDS
    assert client.wait(body["event_id"], timeout_seconds=30).state == "processed"
    assert effects(stack, body["event_id"]) == 1
    assert (
        asyncio.run(last_state(stack, token, topic, send=lambda: post("test.plain", audience=audience))) == "processed"
    )


async def last_state(stack: Stack, token: str, topic: str, *, send: Callable[[], object]) -> str:
    """The state in the last update of the next event: the gateway has found Redis again by itself."""
    async with asyncio.timeout(30), aclosing(watch(stack.live_url, token, topics=[topic])) as frames:
        async for frame in frames:
            if isinstance(frame, Subscribed):
                await asyncio.to_thread(send)
            elif isinstance(frame, UpdateReceived) and frame.event["state"] == "processed":
                return str(frame.event["state"])
    return ""


def test_a_hung_redis_holds_no_post_up(stack: Stack, post: Callable[..., httpx.Response], client: Client) -> None:
    stack.redis.process.send(signal.SIGSTOP)
    try:
        began = time.monotonic()
        answer = post("test.plain")
        took_seconds = time.monotonic() - began
    finally:
        stack.redis.process.send(signal.SIGCONT)

    assert (answer.status_code, answer.json()["enqueued"]) == (202, False)
    assert took_seconds < NOT_HELD_UP_SECONDS
    assert client.wait(answer.json()["event_id"], timeout_seconds=30).state == "processed"


def test_postgres_down_is_said_and_over_when_it_is_back(
    stack: Stack, post: Callable[..., httpx.Response], client: Client
) -> None:
    stack.postgres.crash()
    try:
        answer = post("test.plain")
        live = httpx.get(f"{stack.ingest_url}/livez").status_code
        ready = httpx.get(f"{stack.ingest_url}/readyz", timeout=10).status_code
    finally:
        stack.postgres.start()

    assert answer.status_code == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert int(answer.headers["Retry-After"]) >= 1
    assert (live, ready) == (200, 503)
    event_id = client.send({"type": "test.plain", "data": {}}).event_id
    assert client.wait(event_id, timeout_seconds=30).state == "processed"


def test_another_tenant_sees_nothing_of_an_event(
    stack: Stack, client: Client, post: Callable[..., httpx.Response]
) -> None:
    stranger_key = stack.create_key("stranger")
    with Client(stack.ingest_url, stranger_key) as stranger:
        event_id = post("test.plain").json()["event_id"]
        client.wait(event_id, timeout_seconds=30)

        seen = asyncio.run(first_update(stack, stranger, event_id))

    assert seen["type"] == "test.other"


async def first_update(stack: Stack, stranger: Client, event_id: str) -> dict[str, Any]:
    """What a stranger sees first who asks for everything ever told of another tenant's event, and has one of its own."""
    topics = [f"event:{event_id}", "tenant:stranger"]
    token = stranger.token(topics).token
    subscribed = 0
    watching = watch(stack.live_url, token, topics=topics, positions={topics[0]: "x:0"})
    async with asyncio.timeout(30), aclosing(watching) as frames:
        async for frame in frames:
            if isinstance(frame, Subscribed):
                subscribed += 1
                if subscribed == len(topics):
                    await asyncio.to_thread(stranger.send, {"type": "test.other", "data": {}})
            elif isinstance(frame, UpdateReceived):
                return frame.event
    return {}
