"""Events of requests in flight share a transaction, and neither their answers nor their faults."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from holdfast.local.fixtures import Eventually, clone_template
from holdfast.local.servers import Postgres, Valkey
from holdfast.storage.database import Database

COUNT = 12

Post = Callable[..., httpx.Response]

TRANSACTIONS = "SELECT count(DISTINCT CAST(xmin AS text)) FROM event WHERE CAST(id AS text) = ANY (:ids)"

WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = CAST('event' AS regclass)"


@pytest.fixture(scope="module")
def ingest_settings() -> dict[str, str]:
    """Only requests within one process share a transaction."""
    return {"HOLDFAST_INGEST_PROCESSES": "1"}


@contextlib.contextmanager
def held_up(database: Database, eventually: Eventually) -> Iterator[Callable[[], None]]:
    """Within the block no event is inserted; what is yielded waits until somebody tries to."""
    with database.engine.connect() as connection:
        connection.execute(text("LOCK TABLE event IN SHARE MODE"))
        yield lambda: eventually(lambda: _scalar(database, WAITING) > 0, message="an insert waits")


def _scalar(database: Database, statement: str) -> Any:
    with database.transaction() as session:
        return session.scalar(text(statement))


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(COUNT + 1) as made:
        yield made


def test_requests_in_flight_share_a_transaction(
    ingest: Any, post: Post, make_event: Any, pool: ThreadPoolExecutor, eventually: Eventually
) -> None:
    sent = [make_event() for _ in range(COUNT)]
    with held_up(ingest.database, eventually) as wait:
        answers = [pool.submit(post, each) for each in sent]
        wait()
        eventually(lambda: _in_flight(ingest) >= COUNT, message="all requests are there")

    bodies = [answer.result().json() for answer in answers]
    assert [answer.result().status_code for answer in answers] == [202] * COUNT
    assert [body["id"] for body in bodies] == [each["id"] for each in sent], "each is told of its own event"
    assert [body["enqueued"] for body in bodies] == [True] * COUNT
    with ingest.database.transaction() as session:
        ids = [body["event_id"] for body in bodies]
        transactions = session.scalar(text(TRANSACTIONS), {"ids": ids})
    assert transactions == 2, "the first alone, all others together"


def _in_flight(ingest: Any) -> int:
    """Requests that hold a thread."""
    metrics = httpx.get(f"{ingest.metrics_url}/metrics").text
    return next(
        int(float(line.split()[1])) for line in metrics.splitlines() if line.startswith("holdfast_ingest_in_flight ")
    )


def test_an_event_that_postgresql_refuses_takes_no_other_along(
    ingest: Any, post: Post, make_event: Any, pool: ThreadPoolExecutor, eventually: Eventually
) -> None:
    with ingest.database.transaction() as session:
        session.execute(text(POISON))
    sent = [make_event(type="test.poison" if number == 5 else "test.fine") for number in range(COUNT)]
    with held_up(ingest.database, eventually) as wait:
        answers = [pool.submit(post, each) for each in sent]
        wait()
        eventually(lambda: _in_flight(ingest) >= COUNT, message="all requests are there")

    statuses = [answer.result().status_code for answer in answers]
    assert statuses == [500 if number == 5 else 202 for number in range(COUNT)]
    assert _scalar(ingest.database, "SELECT count(*) FROM event WHERE type = 'test.fine'") == COUNT - 1
    assert _scalar(ingest.database, "SELECT count(*) FROM event WHERE type = 'test.poison'") == 0


POISON = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'poison'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON event FOR EACH ROW WHEN (NEW.type = 'test.poison') EXECUTE FUNCTION refuse();
"""


def test_the_same_event_twice_in_one_transaction_is_recorded_once(
    ingest: Any, post: Post, make_event: Any, pool: ThreadPoolExecutor, eventually: Eventually
) -> None:
    same = make_event()
    sent = [make_event(), *[same] * (COUNT - 1)]
    with held_up(ingest.database, eventually) as wait:
        answers = [pool.submit(post, each) for each in sent]
        wait()
        eventually(lambda: _in_flight(ingest) >= COUNT, message="all requests are there")

    bodies = [answer.result().json() for answer in answers][1:]
    assert len({body["event_id"] for body in bodies}) == 1
    assert sorted(body["duplicate"] for body in bodies) == [False, *[True] * (COUNT - 2)]


def test_a_process_killed_within_a_group_commit_has_answered_nobody_and_loses_nothing(
    postgres: Postgres, valkey: Valkey, start_ingest: Any, make_event: Any, pool: ThreadPoolExecutor,
    eventually: Eventually,
) -> None:  # fmt: skip
    name = clone_template(postgres)
    first = start_ingest(postgres, valkey, database=name)
    key = first.key()
    sent = [make_event() for _ in range(COUNT)]
    with held_up(first.database, eventually) as wait:
        answers = [pool.submit(_send, first, key, each) for each in sent]
        wait()
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(10)
        assert [answer.result() for answer in answers] == [None] * COUNT

    second = start_ingest(postgres, valkey, database=name)
    bodies = [_send(second, key, each) for each in sent]

    assert all(bodies)
    assert _scalar(second.database, "SELECT count(*) FROM event") == COUNT
    assert _scalar(second.database, "SELECT count(*) FROM processing_state") == COUNT


def _send(ingest: Any, key: str, event: dict[str, Any]) -> dict[str, Any] | None:
    """The body of a 202, or ``None`` where no answer came."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/cloudevents+json"}
    try:
        answer = httpx.post(f"{ingest.url}/v1/events", json=event, headers=headers, timeout=30)
    except httpx.TransportError:
        return None
    assert answer.status_code == 202
    return dict(answer.json())
