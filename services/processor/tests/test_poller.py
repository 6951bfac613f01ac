"""Events are found without doorbells: with Redis down or hanging, and with no maintenance anywhere."""

import signal
from collections.abc import Callable
from typing import Any

from holdfast.local.fixtures import Eventually
from holdfast.local.servers import Postgres, Valkey
from holdfast.storage import claims
from holdfast.storage.database import Database
from holdfast.storage.migrate import upgrade

Start = Callable[..., Any]

ORDER = {"order_id": "1", "amount": 1}


def has_processed(stored: Any, count: int) -> Callable[[], bool]:
    return lambda: bool(stored.count("processed") == count)


def test_a_thousand_events_are_processed_while_redis_is_down(
    start: Start, stored: Any, closed_url: str, eventually: Eventually
) -> None:
    stored.record_many("test.order", 1000, ORDER)

    worker = start(BROKER_URL=closed_url, REDIS_URL=closed_url)

    eventually(has_processed(stored, 1000), timeout_seconds=100)
    assert stored.scalar("SELECT count(DISTINCT event_id) FROM effect") == 1000
    assert stored.scalar("SELECT count(*) FROM effect") == 1000
    assert "holdfast_events_polled_total 1000.0" in worker.get("/metrics")[1]


def test_an_event_recorded_during_the_outage_is_found_soon(
    start: Start, stored: Any, own_valkey: Valkey, eventually: Eventually
) -> None:
    worker = start(BROKER_URL=own_valkey.url(), REDIS_URL=own_valkey.url())
    own_valkey.stop()
    eventually(lambda: worker.has_logged("broker does not answer; due events are polled for"))

    event_id = stored.record("test.order", ORDER)

    eventually(lambda: stored.state(event_id) == "processed")
    assert stored.row(event_id).attempt == 1
    own_valkey.start()
    eventually(lambda: worker.has_logged("broker answers again"))


def test_a_redis_that_hangs_does_not_cost_each_event_its_timeout(
    start: Start, stored: Any, own_valkey: Valkey, eventually: Eventually
) -> None:
    start(BROKER_URL=own_valkey.url(), REDIS_URL=own_valkey.url(), PROCESSOR_THREADS="2")
    own_valkey.process.send(signal.SIGSTOP)
    try:
        stored.record_many("test.order", 200, ORDER)  # two timeouts of a second each: 200 s on two threads
        eventually(has_processed(stored, 200), timeout_seconds=60)
    finally:
        own_valkey.process.send(signal.SIGCONT)


def test_an_event_whose_doorbell_was_lost_is_found_without_maintenance(
    start: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    start()
    lost = stored.record("test.order", ORDER)

    eventually(lambda: stored.state(lost) == "processed")

    eventually(lambda: live.told(lost)[-1] == ("processed", 3, 0))


def test_an_event_of_a_lost_worker_is_recovered_without_maintenance(
    start: Start, stored: Any, database: Database, eventually: Eventually
) -> None:
    event_id = stored.record("test.order", ORDER)
    with database.transaction() as session:
        claims.claim_events(session, [(event_id, 1)], owner="gone", lease_seconds=1)

    start()

    eventually(lambda: stored.state(event_id) == "processed")
    row = stored.row(event_id)
    assert (row.crashes, row.attempt, stored.effects(event_id)) == (1, 2, 1)


def test_polled_and_rung_events_share_the_threads(start: Start, stored: Any, live: Any, eventually: Eventually) -> None:
    start(PROCESSOR_THREADS="2")
    rung = [stored.record("test.crowded") for _ in range(60)]
    stored.record_many("test.crowded", 60)
    live.ring(*((event_id, 1) for event_id in rung))

    eventually(has_processed(stored, 120), timeout_seconds=60)

    assert stored.scalar("SELECT max((result->>'at_once')::int) FROM processed_event_log") <= 2


def test_an_outage_of_postgresql_costs_a_wait_and_a_warning(
    start: Start,
    own_postgres: Postgres,
    make_stored: Callable[[Database], Any],
    closed_url: str,
    eventually: Eventually,
) -> None:
    own_postgres.execute("CREATE DATABASE holdfast")
    url = own_postgres.url("holdfast")
    upgrade(url)
    database = Database(url, application_name="test", pool_size=2)
    try:
        stored = make_stored(database)
        worker = start(DATABASE_URL=url, BROKER_URL=closed_url, REDIS_URL=closed_url)
        own_postgres.crash()
        eventually(lambda: worker.has_logged("database unavailable"))
        eventually(lambda: worker.get("/readyz")[0] == 503)
        assert worker.get("/livez")[0] == 200, "starting it again would not help"
        own_postgres.start()
        database.close()  # the test's own connections are gone too

        event_id = stored.record("test.order", ORDER)

        eventually(lambda: stored.state(event_id) == "processed")
        row = stored.row(event_id)
    finally:
        database.close()
    assert (row.attempt, row.crashes) == (1, 0)
    warnings = [line for line in worker.lines() if line["message"] == "database unavailable"]
    assert len(warnings) == 2, "one of each process"
