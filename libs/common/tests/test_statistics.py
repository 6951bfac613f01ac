"""Statistics: what counters say, and what reading them costs."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from tests.history.plans import explained

from holdfast.domain import transitions
from holdfast.domain.event import NewEvent
from holdfast.domain.histogram import BOUNDS_MS, BUCKETS, quantile_ms
from holdfast.domain.state import State
from holdfast.domain.transitions import AttemptError, Completion, Grant
from holdfast.runtime.ids import uuid7
from holdfast.storage import events, lifecycle, served, statistics
from holdfast.storage.counting import count_page
from holdfast.storage.database import Database
from holdfast.storage.statistics import Window

TOKEN = uuid4()

QUARTER_FULL = """
INSERT INTO event_statistics (tenant, step_seconds, at, accepted)
SELECT 'tenant-' || t, step, at, 1
FROM generate_series(1, 5) t, (VALUES (60, 25), (3600, 2160), (86400, 2160)) s(step, hours),
    generate_series(date_bin(make_interval(secs => step), now() - make_interval(hours => hours), 'epoch'), now(),
                    make_interval(secs => step)) at;
INSERT INTO handler_statistics (tenant, step_seconds, at, kind, name, processed, run, wait, end_to_end)
SELECT 'tenant-' || t, step, at, 'handler', 'handler-' || h, 1, zeros, zeros, zeros
FROM generate_series(1, 5) t, generate_series(1, 10) h, (SELECT array_fill(1, ARRAY[17]) AS zeros) z,
    (VALUES (60, 25), (3600, 2160), (86400, 2160)) s(step, hours),
    generate_series(date_bin(make_interval(secs => step), now() - make_interval(hours => hours), 'epoch'), now(),
                    make_interval(secs => step)) at;
"""


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url, application_name="test", pool_size=2)
    yield database
    database.close()


def record(database: Database, tenant: str = "t", type_: str = "x") -> UUID:
    event = NewEvent(id=uuid7(), tenant=tenant, source="/s", ce_id=uuid4().hex, type=type_)
    database.call(events.record, [event], grace_seconds=0)
    return event.id


def process(database: Database, event_id: UUID, *, handler: str = "book", duration_ms: int = 30) -> None:
    move(database, transitions.claim(event_id, 1, Grant(TOKEN, "w", 30)))
    move(database, transitions.settle(event_id, TOKEN, Completion(handler, None, duration_ms)))


def bury(database: Database, event_id: UUID, error: AttemptError) -> None:
    move(database, transitions.claim(event_id, 1, Grant(TOKEN, "w", 30)))
    move(database, transitions.bury(event_id, TOKEN, error))


def move(database: Database, transition: transitions.Transition) -> None:
    assert database.call(lifecycle.apply, [transition])


def count(database: Database) -> None:
    database.call(count_page, limit=10_000)


def run(database: Database, statement: str, **parameters: Any) -> None:
    with database.transaction() as session:
        session.execute(text(statement), parameters)


def now(database: Database) -> datetime:
    return database.call(statistics.present)


def overview(database: Database, tenant: str = "t") -> statistics.Overview:
    return database.call(statistics.overview, tenant)


@pytest.mark.parametrize(
    ("counts", "quantile", "expected"),
    [
        ({}, 0.5, None),
        ({3: 10}, 0.5, 17.5),
        ({3: 10}, 1.0, 25.0),
        ({0: 50, 5: 50}, 0.5, 1.0),
        ({0: 50, 5: 50}, 0.95, 95.0),
        ({BUCKETS - 1: 1}, 0.5, 3_600_000.0),
    ],
)
def test_a_quantile_lies_within_its_bucket(counts: dict[int, int], quantile: float, expected: float | None) -> None:
    found = quantile_ms([counts.get(bucket, 0) for bucket in range(BUCKETS)], quantile)

    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(("window", "points"), [(Window.HOUR, 60), (Window.DAY, 144), (Window.QUARTER, 90)])
def test_a_series_has_a_point_for_each_step_up_to_now(database: Database, window: Window, points: int) -> None:
    process(database, record(database))
    record(database, tenant="other")
    count(database)
    since = window.since(now(database))

    series = database.call(statistics.flow, "t", since=since, step_seconds=window.step_seconds)

    assert len(series) in (points, points + 1), "one more when a step has begun meanwhile"
    assert series[0].at == since
    assert {later.at - earlier.at for earlier, later in pairwise(series)} == {timedelta(seconds=window.step_seconds)}
    assert sum(point.flow.accepted for point in series) == 1
    assert sum(point.flow.processed for point in series[-2:]) == 1


def test_handlers_are_told_by_rate_with_their_times(database: Database) -> None:
    for duration_ms in (30, 30, 30, 4000):
        process(database, record(database), duration_ms=duration_ms)
    process(database, record(database, tenant="other"), handler="hidden")
    bury(database, record(database, type_="com.unknown"), AttemptError("no_handler", "nobody"))
    count(database)

    rows = database.call(statistics.handlers, "t", since=Window.HOUR.since(now(database)))

    assert [(row.kind, row.name, row.processed, row.dead) for row in rows] == [
        ("handler", "book", 4, 0), ("type", "com.unknown", 0, 1),
    ]  # fmt: skip
    book, unknown = rows
    assert book.run.p50_ms is not None
    assert book.run.p95_ms is not None
    assert 25 <= book.run.p50_ms <= 50
    assert 2500 <= book.run.p95_ms <= 5000
    assert book.wait.p50_ms is not None
    assert unknown.run == statistics.Times(None, None)
    assert 0 < book.rate_per_s == pytest.approx(4 / 3600, rel=0.05)
    assert book.last_seen_at is not None
    assert now(database) - book.last_seen_at < timedelta(minutes=1)


def test_an_overview_tells_rates_sums_and_open_events(database: Database) -> None:
    for _ in range(6):
        process(database, record(database))
    bury(database, record(database), AttemptError("KeyError", "k", handler="book"))
    record(database)
    record(database, tenant="other")
    run(database, "UPDATE processing_state SET available_at = now() - interval '90 s' WHERE state = 'queued'")
    count(database)

    found = overview(database)

    assert (found.last_hour.accepted, found.last_hour.processed, found.last_hour.failed) == (8, 6, 1)
    assert found.rates.accepted == pytest.approx(8 / 60, rel=0.5)
    assert found.open_events == {State.QUEUED: 1, State.PROCESSING: 0, State.FAILED: 0, State.DEAD: 1}
    assert found.oldest_due_seconds == pytest.approx(90, abs=20)
    assert not found.is_at_most
    assert found.lag_seconds == 0


def test_rates_are_those_of_the_minute_before(database: Database) -> None:
    record(database)
    count(database)
    run(
        database,
        "UPDATE statistics_cursor SET counted = '1:1:', counted_at = date_trunc('minute', now()) - interval '45 s'",
    )
    run(database, "DELETE FROM event_statistics")
    run(
        database,
        "INSERT INTO event_statistics (tenant, step_seconds, at, accepted) SELECT 't', 60,"
        " date_trunc('minute', now()) - make_interval(mins => m), n FROM (VALUES (1, 15), (2, 60), (3, 999)) v(m, n)",
    )

    found = overview(database)

    # Fifteen seconds into that minute: it has 15, and three quarters of the 60 of the one before belong to it.
    assert found.rates.accepted == pytest.approx((15 + 45) / 60)
    assert found.lag_seconds >= 45


def test_a_tenant_behind_the_backlog_of_others_is_told_a_bound(database: Database) -> None:
    with database.transaction() as session:
        others = [
            NewEvent(id=uuid7(), tenant="loud", source="/s", ce_id=uuid4().hex, type="x")
            for _ in range(statistics.LOOK_AT)
        ]
        events.record(session, others, grace_seconds=0)
    run(database, "UPDATE processing_state SET available_at = now() - interval '1 hour'")
    record(database, tenant="quiet")
    count(database)

    quiet, loud, absent = (overview(database, tenant) for tenant in ("quiet", "loud", "absent"))

    assert (quiet.is_at_most, round(quiet.oldest_due_seconds / 60)) == (True, 60)
    assert (loud.is_at_most, round(loud.oldest_due_seconds / 60)) == (False, 60)
    assert (absent.is_at_most, absent.oldest_due_seconds) == (False, 0)


def test_types_that_nobody_serves_are_told_with_what_waits(database: Database) -> None:
    for tenant, type_ in (("t", "com.typo"), ("t", "com.typo"), ("t", "com.late"), ("other", "com.hidden")):
        event_id = record(database, tenant=tenant, type_=type_)
        database.call(served.wait_for_handler, [event_id], look_again_seconds=60)
    database.call(served.note_served, ["com.late"])

    found = database.call(statistics.unserved, "t")

    assert [(each.type, each.events, each.is_at_least, each.is_served) for each in found] == [
        ("com.typo", 2, False, False), ("com.late", 1, False, True),
    ]  # fmt: skip


def test_reading_ninety_days_of_counters_reads_its_own_rows_alone(database: Database) -> None:
    with database.transaction() as session:
        session.connection().exec_driver_sql(QUARTER_FULL)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")
    moment = now(database)
    most = {Window.HOUR: 60 * 10, Window.DAY: 24 * 60, Window.QUARTER: 90 * 10}

    for window, rows in most.items():
        since = window.since(moment)
        with explained(database) as plans:
            database.call(statistics.flow, "tenant-3", since=since, step_seconds=window.step_seconds)
            database.call(statistics.handlers, "tenant-3", since=since)
            database.call(statistics.overview, "tenant-3")
        for plan in plans:
            assert "Seq Scan event_statistics" not in plan.text, plan.text
            assert "Seq Scan handler_statistics" not in plan.text, plan.text
            assert plan.removed <= 100, plan.text
            assert plan.buffers <= 200 + rows, plan.text
    assert len(plans) > 4, "the statements were explained"


def test_a_bound_of_the_buckets_belongs_to_the_upper_one(database: Database) -> None:
    process(database, record(database), duration_ms=BOUNDS_MS[3])
    count(database)

    with database.transaction() as session:
        ran = session.scalars(text("SELECT run FROM handler_statistics WHERE step_seconds = 60")).one()

    assert ran.index(1) == 4
