"""Recover: leases of lost workers."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import text

from holdfast.domain.transitions import Completion, settle
from holdfast.maintenance.recover import recover
from holdfast.messaging.announce import Announcer
from holdfast.storage import lifecycle
from holdfast.storage.database import Database


def test_a_lost_event_is_queued_again_with_the_crash_counted(
    database: Database, announcer: Announcer, events: Any
) -> None:
    [event_id] = events.lost()

    assert recover(database, announcer, limit=10) == 1

    row = events.row(event_id)
    assert (row.state, row.version, row.attempt, row.crashes) == ("queued", 3, 1, 1)
    assert row.lease_token is None
    assert 0 < row.dispatch_in <= 1, "its doorbell is due within a second, so that recovery ends within lease + 5 s"


def test_a_lease_that_has_not_expired_is_left_alone(database: Database, announcer: Announcer, events: Any) -> None:
    [event_id] = events.record()
    lease = events.claim(event_id)

    assert recover(database, announcer, limit=10) == 0

    assert events.row(event_id).lease_token == lease.token


def test_a_recovered_event_ignores_its_late_worker(database: Database, announcer: Announcer, events: Any) -> None:
    [event_id] = events.record()
    lease = events.claim(event_id)
    events.expire(event_id)
    recover(database, announcer, limit=10)

    with database.transaction() as session:
        late = lifecycle.apply(session, [settle(event_id, lease.token, Completion("h", None, 1))])

    assert late == []
    assert events.row(event_id).state == "queued"


def test_an_event_that_lost_three_workers_is_a_dead_letter(
    database: Database, announcer: Announcer, events: Any
) -> None:
    [event_id] = events.record()
    for _ in range(3):
        events.make_due(event_id)
        events.claim(event_id)
        events.expire(event_id)
        recover(database, announcer, limit=10)

    row = events.row(event_id)
    assert (row.state, row.crashes) == ("dead", 3)
    assert row.last_error["type"] == "crash_loop"


def test_each_crash_doubles_the_wait(database: Database, announcer: Announcer, events: Any) -> None:
    [event_id] = events.lost()
    recover(database, announcer, limit=10)
    events.make_due(event_id)
    events.claim(event_id)
    events.expire(event_id)

    recover(database, announcer, limit=10)

    assert 1 < events.row(event_id).dispatch_in <= 2


def test_recovery_is_told_live(database: Database, announcer: Announcer, events: Any, in_redis: Any) -> None:
    [event_id] = events.lost()

    recover(database, announcer, limit=10)

    [update] = in_redis.published(event_id)
    assert (update["state"], update["version"], update["detail"]) == ("queued", 3, {"reason": "recovered"})


def test_without_redis_events_are_recovered_and_their_updates_wait(
    database: Database, make_announcer: Callable[[str], Announcer], closed_url: str, events: Any
) -> None:
    [event_id] = events.lost()

    assert recover(database, make_announcer(closed_url), limit=10) == 1

    assert events.row(event_id).state == "queued"
    assert events.in_outbox(event_id) == [1, 2, 3]


def test_a_worker_that_is_settling_is_alive_however_old_its_lease(
    database: Database, announcer: Announcer, events: Any
) -> None:
    [event_id] = events.record()
    lease = events.claim(event_id)
    events.expire(event_id)
    with database.transaction() as session:
        lifecycle.hold(session, lease)

        recovered = recover(database, announcer, limit=10)
        settled = lifecycle.apply(session, [settle(event_id, lease.token, Completion("h", None, 1))])

    assert recovered == 0
    assert [update.state for update in settled] == ["processed"]


def test_the_oldest_leases_come_first_and_no_more_than_asked_for(
    database: Database, announcer: Announcer, events: Any
) -> None:
    event_ids = events.lost(3)
    events.execute(
        "UPDATE processing_state SET lease_expires_at = now() - interval '1 h' WHERE event_id = :id", event_ids[2]
    )

    assert recover(database, announcer, limit=1) == 1

    assert [events.row(event_id).state for event_id in event_ids] == ["processing", "processing", "queued"]


def test_a_row_locked_by_another_sweep_is_skipped(database: Database, announcer: Announcer, events: Any) -> None:
    [locked, free] = events.lost(2)
    with database.transaction() as session:
        session.execute(text("SELECT 1 FROM processing_state WHERE event_id = :id FOR UPDATE"), {"id": locked})

        assert recover(database, announcer, limit=10) == 1

    assert events.row(free).state == "queued"
    assert events.row(locked).state == "processing"
