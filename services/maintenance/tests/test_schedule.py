"""Schedules at work: each tick has its event once, whoever looks and whatever dies, and it is announced."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Row, text
from structlog.testing import capture_logs

from holdfast.domain.errors import DatabaseUnavailable
from holdfast.domain.schedule import MOST_AT_ONCE, Missed, Overlap
from holdfast.maintenance.schedule import record_ticks, tick
from holdfast.messaging.announce import Announcer
from holdfast.runtime.telemetry import Log, Metrics
from holdfast.storage.database import Database

MINUTE = timedelta(minutes=1)

EVERY_MINUTE = "* * * * *"


@pytest.fixture
def second_database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, application_name="second", pool_size=2)
    yield made
    made.close()


def turn(database: Database, announcer: Announcer, limit: int = 500) -> int:
    return record_ticks(database, announcer, limit=limit, grace_seconds=300)


def recorded(events: Any) -> list[Row[Any]]:
    """The events of schedules, by tick."""
    return list(events.execute("SELECT * FROM event WHERE type = 'test.due' ORDER BY time, source"))


def stored(events: Any, schedule_id: UUID) -> Row[Any]:
    found: Row[Any] = events.execute("SELECT *, now() AS now FROM schedule WHERE id = :id", schedule_id)[0]
    return found


def ticks(outcome: str) -> float:
    return float(Metrics.schedule_ticks.labels(outcome)._value.get())


def test_a_tick_becomes_an_event_that_is_told_and_rung_for(
    database: Database, announcer: Announcer, events: Any, in_redis: Any
) -> None:
    schedule_id = events.schedule(data=b'{"amount": 1.10}', subject="s", audience="u")
    before, lateness = ticks("recorded"), Metrics.schedule_lateness_seconds._sum.get()
    planned = stored(events, schedule_id).next_at

    assert turn(database, announcer) == 1
    assert turn(database, announcer) == 0

    [event] = recorded(events)
    assert (event.tenant, event.source, event.time) == ("acme", "/holdfast/schedules/report", planned)
    assert event.ce_id == planned.isoformat().replace("+00:00", "Z")
    assert (event.subject, event.audience, bytes(event.data_bytes), event.is_json) == (
        "s",
        "u",
        b'{"amount": 1.10}',
        True,
    )
    after = stored(events, schedule_id)
    assert (after.next_at, after.last_at, after.last_event_id) == (planned + 60 * MINUTE, planned, event.id)
    assert in_redis.doorbells() == [(event.id, 1)]
    assert [update["state"] for update in in_redis.published(event.id)] == ["queued"]
    assert ticks("recorded") == before + 1
    assert Metrics.schedule_lateness_seconds._sum.get() - lateness == pytest.approx(
        (event.received_at - planned).total_seconds()
    )


def test_two_schedulers_at_once_record_each_tick_once(
    database: Database, second_database: Database, announcer: Announcer, events: Any, in_redis: Any
) -> None:
    ids = [
        events.schedule(f"s{number}", late_seconds=300, cron=EVERY_MINUTE, missed=Missed.ALL) for number in range(10)
    ]
    first = {schedule_id: stored(events, schedule_id).next_at for schedule_id in ids}
    barrier = threading.Barrier(4)

    def work(own: Database) -> int:
        barrier.wait(10)
        return sum(turn(own, announcer, limit=10) for _ in range(3))

    with ThreadPoolExecutor(4) as pool:
        had_a_turn = sum(pool.map(work, [database, second_database, database, second_database]))

    found = recorded(events)
    counted = Counter((event.source, event.time) for event in found)
    assert had_a_turn >= 10
    assert set(counted.values()) == {1}
    for number, schedule_id in enumerate(ids):
        after = stored(events, schedule_id)
        expected = {
            first[schedule_id] + count * MINUTE for count in range((after.next_at - first[schedule_id]) // MINUTE)
        }
        assert {at for source, at in counted if source == f"/holdfast/schedules/s{number}"} == expected
        assert after.skipped == 0
    assert Counter(in_redis.doorbells()) == Counter((event.id, 1) for event in found)


def test_a_scheduler_that_dies_before_its_commit_leaves_the_tick_to_the_next_one(
    database: Database, second_database: Database, announcer: Announcer, events: Any, in_redis: Any
) -> None:
    schedule_id = events.schedule()
    planned = stored(events, schedule_id).next_at

    def die() -> None:
        with second_database.transaction() as session:
            assert tick(session, schedule_id, grace_seconds=300) is not None
            assert turn(database, announcer) == 0, "the row is locked"
            pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
            events.execute(f"SELECT pg_terminate_backend({int(pid)}, 10000)")

    with pytest.raises(DatabaseUnavailable):
        die()
    assert recorded(events) == []
    assert stored(events, schedule_id).next_at == planned

    assert turn(database, announcer) == 1

    [event] = recorded(events)
    assert event.time == planned
    assert in_redis.doorbells() == [(event.id, 1)]


def test_a_scheduler_that_dies_after_its_commit_has_recorded_the_tick_and_others_announce_it(
    database: Database, announcer: Announcer, events: Any, in_redis: Any
) -> None:
    schedule_id = events.schedule()

    assert database.call(tick, schedule_id, grace_seconds=0) is not None

    assert turn(database, announcer) == 0
    [event] = recorded(events)
    assert in_redis.doorbells() == []
    assert events.row(event.id).dispatch_in <= 0, "redispatch rings for it"
    assert events.in_outbox(event.id) == [1], "the relay publishes it"


def test_a_schedule_that_is_set_back_records_no_tick_a_second_time(
    database: Database, announcer: Announcer, events: Any, in_redis: Any
) -> None:
    schedule_id = events.schedule()
    planned = stored(events, schedule_id).next_at
    turn(database, announcer)
    events.execute("UPDATE schedule SET next_at = last_at")
    known = ticks("known")

    assert turn(database, announcer) == 1

    [event] = recorded(events)
    assert (event.time, stored(events, schedule_id).last_event_id) == (planned, event.id)
    assert in_redis.doorbells() == [(event.id, 1)]
    assert ticks("known") == known + 1


def test_a_schedule_that_was_deleted_and_made_anew_does_not_repeat_its_tick(
    database: Database, announcer: Announcer, events: Any
) -> None:
    events.schedule(cron=EVERY_MINUTE, missed=Missed.ALL)
    turn(database, announcer)
    [first] = recorded(events)
    events.execute("DELETE FROM schedule")
    events.schedule(cron=EVERY_MINUTE, missed=Missed.ALL, data=b"2")
    events.execute("UPDATE schedule SET next_at = (SELECT time FROM event WHERE type = 'test.due')")

    assert turn(database, announcer) == 1

    assert [event.id for event in recorded(events) if event.time == first.time] == [first.id]


@pytest.mark.parametrize(("missed", "least"), [(Missed.LATEST, 1), (Missed.ALL, 11), (Missed.SKIP, 1)])
def test_missed_ticks_are_made_up_for_as_the_schedule_says(
    database: Database, announcer: Announcer, events: Any, missed: Missed, least: int
) -> None:
    schedule_id = events.schedule(late_seconds=600, cron=EVERY_MINUTE, missed=missed)
    first, before = stored(events, schedule_id).next_at, ticks("missed")

    with capture_logs() as logged:
        turn(database, announcer)

    found, after = recorded(events), stored(events, schedule_id)
    total = (after.next_at - first) // MINUTE
    assert found[-1].time == after.next_at - MINUTE
    assert least <= len(found) <= least + 1
    assert len(found) + after.skipped == total
    assert ticks("missed") - before == after.skipped
    assert [line["count"] for line in logged if line["event"] == Log.TICKS_MISSED] == (
        [after.skipped] if after.skipped else []
    )


def test_many_missed_ticks_are_made_up_for_a_part_at_a_time_in_order(
    database: Database, announcer: Announcer, events: Any
) -> None:
    schedule_id = events.schedule(late_seconds=150 * 60, cron=EVERY_MINUTE, missed=Missed.ALL)
    first = stored(events, schedule_id).next_at

    assert turn(database, announcer) == 1
    assert len(recorded(events)) == MOST_AT_ONCE
    assert stored(events, schedule_id).next_at == first + MOST_AT_ONCE * MINUTE
    assert turn(database, announcer) == 1

    times: list[datetime] = [event.time for event in recorded(events)]
    assert times == [first + count * MINUTE for count in range(len(times))]
    assert len(times) >= 151


@pytest.mark.parametrize("overlap", Overlap)
def test_a_tick_has_no_event_while_the_one_before_is_open_if_the_schedule_says_so(
    database: Database, announcer: Announcer, events: Any, overlap: Overlap
) -> None:
    schedule_id = events.schedule(overlap=overlap)
    turn(database, announcer)
    [first] = recorded(events)
    before = ticks("overlap")

    def next_tick() -> None:
        # The same tick, of which no event tells any more that it was recorded: as good as the next one.
        events.execute("UPDATE schedule SET next_at = last_at")
        events.execute("UPDATE event SET ce_id = gen_random_uuid()::text")
        assert turn(database, announcer) == 1

    next_tick()
    skips = overlap is Overlap.SKIP
    assert len(recorded(events)) == (1 if skips else 2)
    assert (stored(events, schedule_id).skipped, ticks("overlap") - before) == ((1, 1) if skips else (0, 0))

    events.execute("UPDATE processing_state SET state = 'dead', finished_at = now()")
    next_tick()
    assert len(recorded(events)) == (2 if skips else 3)
    assert (stored(events, schedule_id).last_event_id == first.id) is False


def test_of_ticks_with_a_debounce_window_the_last_one_waits(
    database: Database, announcer: Announcer, events: Any, in_redis: Any
) -> None:
    window = {"debounceseconds": 600, "debouncekey": "k"}
    first_id, second_id = (events.schedule(name, extensions=window) for name in ("first", "second"))

    assert turn(database, announcer, limit=1) == 1
    [first] = recorded(events)
    assert turn(database, announcer) == 1

    replaced, last = sorted(recorded(events), key=lambda event: event.received_at)
    assert (replaced.id, replaced.extensions) == (first.id, window)
    assert [events.row(each).state for each in (first.id, last.id)] == ["discarded", "queued"]
    assert {stored(events, each).last_event_id for each in (first_id, second_id)} == {first.id, last.id}
    assert in_redis.doorbells() == [], "neither is due"
    assert [update["state"] for update in in_redis.published(first.id)] == ["queued", "discarded"]
    assert in_redis.published(first.id)[-1]["detail"]["superseded_by"] == str(last.id)
    assert [update["state"] for update in in_redis.published(last.id)] == ["queued"]


def test_of_missed_ticks_that_are_made_up_for_a_debounce_window_leaves_the_last(
    database: Database, announcer: Announcer, events: Any, in_redis: Any
) -> None:
    schedule_id = events.schedule(
        late_seconds=600, cron=EVERY_MINUTE, missed=Missed.ALL, extensions={"debounceseconds": 60}
    )

    assert turn(database, announcer) == 1

    found, after = recorded(events), stored(events, schedule_id)
    *before, last = found
    assert len(before) >= 10
    assert {events.row(each.id).state for each in before} == {"discarded"}
    assert (events.row(last.id).state, after.last_event_id, after.last_at) == ("queued", last.id, last.time)
    assert [update["state"] for update in in_redis.published(before[0].id)] == ["queued", "discarded"]


def test_a_tick_within_a_unique_window_has_no_event_and_counts_as_skipped(
    database: Database, announcer: Announcer, events: Any, in_redis: Any
) -> None:
    schedule_id = events.schedule(
        late_seconds=600, cron=EVERY_MINUTE, missed=Missed.ALL, extensions={"uniqueseconds": 3600}
    )
    first = stored(events, schedule_id).next_at
    before = {outcome: ticks(outcome) for outcome in ("recorded", "known", "unique")}

    assert turn(database, announcer) == 1
    [event] = recorded(events)
    after = stored(events, schedule_id)
    total = (after.next_at - first) // MINUTE
    assert (event.time, after.last_at, after.last_event_id, after.skipped) == (first, first, event.id, total - 1)
    assert {outcome: ticks(outcome) - count for outcome, count in before.items()} == {
        "recorded": 1, "known": 0, "unique": total - 1,
    }  # fmt: skip
    assert in_redis.doorbells() == [(event.id, 1)]

    events.execute("UPDATE event_window SET until = now()")
    events.execute("UPDATE schedule SET next_at = next_at - interval '1 minute'")
    events.execute("UPDATE event SET ce_id = gen_random_uuid()::text")
    assert turn(database, announcer) == 1
    assert len(recorded(events)) == 2, "the window is over"


def test_a_schedule_that_cannot_be_followed_waits_and_the_others_go_on(
    database: Database, announcer: Announcer, events: Any
) -> None:
    wrong, _ = events.schedule("wrong", late_seconds=120), events.schedule("right")
    events.execute("UPDATE schedule SET timezone = 'Mars/Olympus' WHERE name = 'wrong'")
    before = ticks("failed")

    with capture_logs() as logged:
        assert turn(database, announcer) == 1

    assert [event.source for event in recorded(events)] == ["/holdfast/schedules/right"]
    after = stored(events, wrong)
    assert (after.failures, after.last_error, after.retry_at > after.now) == (1, "InvalidSchedule", True)
    assert [line["schedule_id"] for line in logged if line["event"] == Log.SCHEDULE_FAILED] == [str(wrong)]
    assert ticks("failed") == before + 1

    events.execute("UPDATE schedule SET timezone = 'UTC', retry_at = now() WHERE name = 'wrong'")
    assert turn(database, announcer) == 1
    assert (stored(events, wrong).failures, len(recorded(events))) == (0, 2)


def test_without_redis_ticks_are_recorded_all_the_same(
    database: Database, make_announcer: Any, closed_url: str, events: Any
) -> None:
    events.schedule()

    assert turn(database, make_announcer(closed_url)) == 1

    assert len(recorded(events)) == 1
