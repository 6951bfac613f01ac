"""Servers that stop, hang and restart under a running ingest. Its servers are its own; each test leaves them running."""

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from holdfast.local.servers import Postgres, Server, Valkey
from holdfast.messaging.live import open_publisher
from holdfast.storage.database import Database
from holdfast.storage.migrate import upgrade

pytestmark = pytest.mark.xdist_group("ingest-faults")

Post = Callable[..., httpx.Response]
Get = Callable[..., httpx.Response]
MakeEvent = Callable[..., dict[str, Any]]

REQUESTS = 5
"""One after the other without Redis: enough that some wait for it and some do not."""

REDIS_TIMEOUT_SECONDS = 0.3

SOON_SECONDS = 3
"""Room for a busy machine; a request that waits for a server that is hung takes for ever."""


@pytest.fixture(scope="module")
def own_postgres(server_folder: Path) -> Iterator[Postgres]:
    server = Postgres(server_folder / "ingest-faults", is_durable=False)
    server.start()
    server.execute("CREATE DATABASE holdfast")
    upgrade(server.url("holdfast"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def own_valkey(server_folder: Path) -> Iterator[Valkey]:
    server = Valkey(server_folder / "ingest-faults")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def ingest(own_postgres: Postgres, own_valkey: Valkey, start_ingest: Any, eventually: Any) -> Iterator[Any]:
    # Each process notices an outage and its end for itself: these tests are about one.
    made = start_ingest(own_postgres, own_valkey, database="holdfast", HOLDFAST_INGEST_PROCESSES="1")
    eventually(made.is_ready, timeout_seconds=30)
    yield made
    made.stop()


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


@contextmanager
def hung(server: Server) -> Iterator[None]:
    server.send(signal.SIGSTOP)
    try:
        yield
    finally:
        server.send(signal.SIGCONT)


def readiness(ingest: Any) -> tuple[int, dict[str, Any]]:
    answer = httpx.get(f"{ingest.url}/readyz?verbose", timeout=10)
    return answer.status_code, answer.json()


def is_enqueued(post: Post, event: dict[str, Any]) -> bool:
    answer = post(event)
    assert answer.status_code == 202
    return bool(answer.json()["enqueued"])


def did_not_wait(answer: httpx.Response) -> bool:
    return answer.elapsed.total_seconds() < REDIS_TIMEOUT_SECONDS


def many(send: Callable[[], httpx.Response], count: int = 16) -> list[httpx.Response]:
    """Send at the same time, so that every thread has a database connection of its own."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: send(), range(count)))


@pytest.mark.parametrize("fault", [stopped, hung])
def test_without_redis_events_are_accepted_soon(
    ingest: Any, own_valkey: Valkey, post: Post, make_event: MakeEvent, eventually: Any, fault: Any
) -> None:
    assert is_enqueued(post, make_event())

    with fault(own_valkey):
        answers = [post(make_event()) for _ in range(REQUESTS)]
        eventually(lambda: did_not_wait(post(make_event())), message="every request waits for redis")
        ready = readiness(ingest)

    assert [(answer.status_code, answer.json()["enqueued"]) for answer in answers] == [(202, False)] * REQUESTS
    assert max(answer.elapsed.total_seconds() for answer in answers) < SOON_SECONDS
    assert (ready[0], ready[1]["status"], ready[1]["checks"]["database"]) == (200, "degraded", "ok")
    eventually(lambda: is_enqueued(post, make_event()), message="redis came back and was not found again")
    assert readiness(ingest)[1]["status"] == "ok"


def test_what_redis_did_not_take_is_counted_and_logged(
    ingest: Any, own_valkey: Valkey, post: Post, make_event: MakeEvent, eventually: Any
) -> None:
    def failures() -> float:
        lines = httpx.get(f"{ingest.metrics_url}/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith("holdfast_enqueue_failures_total")).split()[1])

    before, logged_before = failures(), Counter(line["message"] for line in ingest.lines())

    with stopped(own_valkey):
        for _ in range(3):
            post(make_event())

    assert failures() == before + 6  # an update and a doorbell for each event
    eventually(lambda: is_enqueued(post, make_event()))
    logged = Counter(line["message"] for line in ingest.lines()) - logged_before
    assert logged["doorbells not rung; polling and redispatch find the events"] == 1, "once for the outage"
    assert logged["updates not published; the relay will"] == 1
    assert logged["broker answers again"] == 1


def test_an_update_that_redis_did_not_take_is_left_to_the_relay(
    own_valkey: Valkey, post: Post, make_event: MakeEvent, eventually: Any
) -> None:
    publisher = open_publisher(own_valkey.url(1), timeout_seconds=5, window_seconds=600, window_updates=100)

    with stopped(own_valkey):
        missed = UUID(post(make_event()).json()["event_id"])
    eventually(lambda: is_enqueued(post, make_event()))
    told = UUID(post(make_event()).json()["event_id"])

    assert publisher.missing([(told, 1), (missed, 1)]) == [(missed, 1)]

    publisher.close()


def test_without_postgres_every_request_is_503_soon_and_says_when_to_come_back(
    ingest: Any, own_postgres: Postgres, post: Post, get: Get, make_event: MakeEvent, eventually: Any
) -> None:
    event = make_event()
    event_id = post(event).json()["event_id"]

    with stopped(own_postgres):
        answers = [post(make_event()), post(event), get(event_id)]
        alive = httpx.get(f"{ingest.url}/livez").status_code
        ready = readiness(ingest)

    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert 1 <= int(answer.headers["Retry-After"]) <= 5
        assert answer.elapsed.total_seconds() < SOON_SECONDS
    assert alive == 200
    assert (ready[0], ready[1]["checks"]["database"]) == (503, "DatabaseUnavailable")
    eventually(lambda: post(event).status_code == 202)
    assert post(event).json()["event_id"] == event_id


def test_an_outage_is_logged_without_a_traceback_for_each_request(
    ingest: Any, own_postgres: Postgres, post: Post, make_event: MakeEvent, eventually: Any
) -> None:
    with stopped(own_postgres):
        request_id = post(make_event()).headers["X-Request-Id"]

    logged = [line for line in ingest.lines() if line.get("request_id") == request_id]
    assert [line["message"] for line in logged] == ["database unavailable", "request rejected"]
    assert not any("error.stack" in line for line in logged)
    eventually(lambda: post(make_event()).status_code == 202)


def kill_connections(postgres: Postgres) -> None:
    kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'holdfast-ingest'"
    assert int(postgres.execute(kill)) > 0


def test_a_restart_of_postgres_between_requests_costs_none(
    own_postgres: Postgres, post: Post, make_event: MakeEvent
) -> None:
    many(lambda: post(make_event()))

    own_postgres.crash()
    own_postgres.start()

    assert {answer.status_code for answer in many(lambda: post(make_event()))} == {202}


def test_connections_that_are_killed_again_and_again_cost_no_request(
    own_postgres: Postgres, post: Post, make_event: MakeEvent
) -> None:
    many(lambda: post(make_event()))

    for _ in range(5):
        kill_connections(own_postgres)
        assert {answer.status_code for answer in many(lambda: post(make_event()), 8)} == {202}


@pytest.fixture(scope="module")
def remembering(own_postgres: Postgres, own_valkey: Valkey, start_ingest: Any) -> Any:
    """An ingest that looks a key up once, so that what a request asks the database first is not about its key."""
    settings = {"HOLDFAST_KEY_CACHE_SECONDS": "60", "HOLDFAST_INGEST_PROCESSES": "1"}  # each remembers for itself
    return start_ingest(own_postgres, own_valkey, database="holdfast", **settings)


def test_a_dead_connection_is_replaced_under_a_post_and_under_a_get(
    own_postgres: Postgres, remembering: Any, post_to: Post
) -> None:
    key = remembering.key()
    accepted = post_to(remembering, key)
    address = f"{remembering.url}{accepted.headers['Location']}"
    for _ in range(3):
        kill_connections(own_postgres)
        assert httpx.get(address, headers={"Authorization": f"Bearer {key}"}).status_code == 200

        kill_connections(own_postgres)
        assert post_to(remembering, key).status_code == 202


def test_a_known_key_opens_while_postgres_is_away(own_postgres: Postgres, remembering: Any) -> None:
    headers = {"Authorization": f"Bearer {remembering.key()}"}

    def mint() -> int:
        return httpx.post(f"{remembering.url}/v1/tokens", json={"topics": ["event:*"]}, headers=headers).status_code

    assert mint() == 201

    with stopped(own_postgres):
        assert mint() == 201


def test_it_starts_without_any_server_and_accepts_once_they_are_there(
    own_postgres: Postgres, own_valkey: Valkey, start_ingest: Any, post_to: Post, eventually: Any
) -> None:
    with stopped(own_postgres), stopped(own_valkey):
        ingest = start_ingest(own_postgres, own_valkey, database="holdfast")
        assert readiness(ingest)[0] == 503

    eventually(ingest.is_ready, timeout_seconds=20)
    assert post_to(ingest, ingest.key()).status_code == 202


def test_a_database_without_the_schema_is_not_ready(
    own_postgres: Postgres, own_valkey: Valkey, start_ingest: Any
) -> None:
    own_postgres.execute("CREATE DATABASE empty")

    status, answer = readiness(start_ingest(own_postgres, own_valkey, database="empty"))

    assert (status, answer["checks"]["database"]) == (503, "SchemaOutdated")


def test_a_statement_that_takes_too_long_is_a_503(own_postgres: Postgres, post: Post, make_event: MakeEvent) -> None:
    database = Database(own_postgres.url("holdfast"), application_name="test", statement_timeout_seconds=0)
    with database.transaction() as session:
        session.execute(text("LOCK TABLE event IN ACCESS EXCLUSIVE MODE"))
        answer = post(make_event())
    database.close()

    assert (answer.status_code, answer.json()["code"]) == (503, "database_slow")
    assert 5 <= int(answer.headers["Retry-After"]) <= 15
    assert post(make_event()).status_code == 202
