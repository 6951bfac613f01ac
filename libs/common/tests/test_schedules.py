"""Schedules in PostgreSQL: made, replaced, paused, deleted and taken when they are due. Changes are audited."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from holdfast.domain.event import NewEvent
from holdfast.domain.schedule import Missed, Overlap, ScheduleSpec
from holdfast.runtime.cron import next_tick
from holdfast.runtime.ids import uuid7
from holdfast.storage import event_views, events, operate, schedules
from holdfast.storage.audit import Actor, AuditFilter, handlers_actor, list_audit
from holdfast.storage.database import Database
from holdfast.storage.schedules import Change, NotPut, Put, Schedule
from holdfast.storage.sweeps import due_sweeps

ANN = Actor("acme", "abcdefghijkl", "ann's key")
SPEC = ScheduleSpec(
    name="daily-report", cron="0 7 * * mon-fri", timezone="Europe/Istanbul", type="com.acme.report.due",
    source="/reports", subject="s", audience="u", data=b'{"a": 1.0}', missed=Missed.ALL, overlap=Overlap.SKIP,
    extensions={"uniqueseconds": 60, "uniquekey": "k"},
)  # fmt: skip


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, application_name="test", pool_size=4)
    yield made
    made.close()


def put(database: Database, spec: ScheduleSpec = SPEC, actor: Actor = ANN, **options: Any) -> Put | NotPut:
    return database.call(schedules.put_schedule, actor, spec, next_tick=next_tick, **options)


def made(database: Database, spec: ScheduleSpec = SPEC, actor: Actor = ANN, **options: Any) -> Schedule:
    found = put(database, spec, actor, **options)
    assert isinstance(found, Put), found
    return found.schedule


def stored(database: Database, name: str = SPEC.name, tenant: str = "acme") -> Schedule:
    found = database.call(schedules.find_schedule, name, tenant=tenant)
    assert found is not None
    return found


def pause(database: Database, is_paused: bool, actor: Actor = ANN) -> Schedule | None:
    return database.call(schedules.set_paused, actor, SPEC.name, is_paused=is_paused, next_tick=next_tick)


def run(database: Database, statement: str) -> None:
    with database.transaction() as session:
        session.execute(text(statement))


def actions(database: Database) -> list[tuple[str, str]]:
    page = database.call(list_audit, AuditFilter(), tenant="acme", limit=50)
    return [(entry.action, entry.actor) for entry in reversed(page.items)]


def make_due(database: Database) -> None:
    run(database, "UPDATE schedule SET next_at = now() - interval '1 s'")


def test_a_schedule_is_stored_whole_and_ticks_at_its_next_time(database: Database) -> None:
    found = made(database)

    assert found == stored(database)
    assert found.spec == SPEC
    assert (found.tenant, found.created_by, found.is_paused, found.is_declared) == (
        "acme",
        "abcdefghijkl",
        False,
        False,
    )
    assert (found.last_at, found.last_event_id, found.skipped, found.failures) == (None, None, 0, 0)
    assert found.next_at == next_tick(SPEC, found.created_at)
    assert found.next_at is not None
    assert found.next_at.astimezone(UTC).hour == 4, "seven o'clock in Istanbul"
    assert actions(database) == [("create_schedule", "abcdefghijkl")]


def test_putting_it_again_changes_nothing_and_is_not_written_down(database: Database) -> None:
    first = made(database)

    assert put(database, actor=Actor("acme", "another")) == Put(first, Change.NONE)
    assert len(actions(database)) == 1


def test_another_cron_has_its_own_next_tick_and_other_data_has_not(database: Database) -> None:
    made(database)
    run(database, "UPDATE schedule SET next_at = '2026-01-01T00:00:00Z', failures = 3, retry_at = now()")

    other_data = made(database, replace(SPEC, data=b'{"a": 2}'))
    assert (other_data.next_at, other_data.failures) == (datetime(2026, 1, 1, tzinfo=UTC), 0)

    other_zone = made(database, replace(SPEC, timezone="UTC"))
    assert other_zone.next_at is not None
    assert other_zone.next_at > datetime.now(UTC)
    assert other_zone.next_at.hour == 7
    assert [action for action, _ in actions(database)] == ["create_schedule", "change_schedule", "change_schedule"]


def test_a_pause_survives_a_change_and_is_made_once(database: Database) -> None:
    made(database)
    assert pause(database, True)
    assert pause(database, True)

    assert made(database, replace(SPEC, cron="0 8 * * *")).is_paused
    assert [action for action, _ in actions(database)] == ["create_schedule", "pause_schedule", "change_schedule"]


def test_a_paused_schedule_is_never_due_and_makes_up_for_nothing_when_it_goes_on(database: Database) -> None:
    made(database)
    pause(database, True)
    make_due(database)
    assert database.call(schedules.due_schedules, limit=9) == []
    assert not due_sweeps(database, after_seconds=60).schedules

    resumed = pause(database, False)

    assert resumed is not None
    assert resumed.next_at is not None
    assert resumed.next_at > datetime.now(UTC)
    assert actions(database)[-1] == ("resume_schedule", "abcdefghijkl")


def test_another_tenants_schedule_is_another_one(database: Database) -> None:
    stranger = Actor("other", "k")
    made(database)

    assert database.call(schedules.find_schedule, SPEC.name, tenant="other") is None
    assert pause(database, True, stranger) is None
    assert database.call(schedules.delete_schedule, stranger, SPEC.name) is None
    assert database.call(schedules.list_schedules, tenant="other", limit=9).items == []
    assert made(database, actor=stranger).id != stored(database).id


def test_a_tenant_has_so_many_schedules_and_may_still_change_those(database: Database) -> None:
    for name in ("one", "two"):
        made(database, replace(SPEC, name=name))

    assert put(database, most=2) is NotPut.TOO_MANY
    assert made(database, replace(SPEC, name="two", cron="0 8 * * *"), most=2).spec.cron == "0 8 * * *"
    assert made(database, actor=Actor("other", "k"), most=2)


def test_of_two_that_make_one_at_once_one_makes_it(database: Database) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: put(database), range(12)))

    assert sorted(each.change for each in done if isinstance(each, Put)) == ["created", *["none"] * 11]


def test_what_handlers_declare_is_changed_by_them_alone(database: Database) -> None:
    declared = made(database, actor=handlers_actor("acme"), is_declared=True)
    assert declared.is_declared

    assert put(database, replace(SPEC, cron="0 8 * * *")) is NotPut.DECLARED
    assert stored(database).spec == SPEC
    assert (
        made(database, replace(SPEC, cron="0 9 * * *"), handlers_actor("acme"), is_declared=True).spec.cron
        == "0 9 * * *"
    )
    assert actions(database) == [("create_schedule", "handlers"), ("change_schedule", "handlers")]


def test_handlers_take_over_what_somebody_has_made(database: Database) -> None:
    by_hand = made(database)

    declared = made(database, actor=handlers_actor("acme"), is_declared=True)

    assert (declared.id, declared.is_declared, declared.created_by) == (by_hand.id, True, "abcdefghijkl")


def test_a_deleted_schedule_is_gone_and_its_events_are_not(database: Database) -> None:
    schedule = made(database)
    event = NewEvent(id=uuid7(), tenant="acme", source="/reports", ce_id="1", type="x")
    database.call(events.record, [event], grace_seconds=5)

    assert database.call(schedules.delete_schedule, ANN, SPEC.name) == schedule
    assert database.call(schedules.delete_schedule, ANN, SPEC.name) is None

    assert database.call(schedules.find_schedule, SPEC.name, tenant="acme") is None
    assert database.call(event_views.find, event_id=event.id, tenant="acme") is not None
    assert [action for action, _ in actions(database)] == ["create_schedule", "delete_schedule"]


def test_pages_follow_each_other_by_name(database: Database) -> None:
    for name in ("c", "a", "e", "b", "d"):
        made(database, replace(SPEC, name=name))

    pages, after = [], None
    while True:
        page = database.call(schedules.list_schedules, tenant="acme", limit=2, after_name=after)
        pages.append("".join(each.spec.name for each in page.items))
        after = page.next_name
        if after is None:
            break

    assert pages == ["ab", "cd", "e"]


def test_a_schedule_is_due_when_its_tick_has_come_and_one_process_has_it(database: Database) -> None:
    schedule = made(database)
    assert database.call(schedules.due_schedules, limit=9) == []
    assert database.call(schedules.take_due, schedule.id) is None
    make_due(database)
    assert database.call(schedules.due_schedules, limit=9) == [schedule.id]
    assert due_sweeps(database, after_seconds=60).schedules

    with database.transaction() as first, database.transaction() as second:
        taken = schedules.take_due(first, schedule.id)
        assert taken is not None
        assert timedelta(seconds=1) <= taken.now - taken.planned < timedelta(seconds=60)
        assert schedules.take_due(second, schedule.id) is None
        schedules.note_ticks(first, schedule.id, next_at=taken.now + timedelta(hours=1), last=None, skipped=2)

    assert database.call(schedules.take_due, schedule.id) is None
    assert (stored(database).skipped, stored(database).last_at) == (2, None)


def test_the_last_tick_stays_until_another_one_has_an_event(database: Database) -> None:
    schedule, at, event_id = made(database), datetime(2026, 1, 1, tzinfo=UTC), uuid4()

    database.call(schedules.note_ticks, schedule.id, next_at=None, last=(at, event_id), skipped=0)
    database.call(schedules.note_ticks, schedule.id, next_at=None, last=None, skipped=1)

    found = stored(database)
    assert (found.next_at, found.last_at, found.last_event_id, found.skipped) == (None, at, event_id, 1)


@pytest.mark.parametrize("is_given_up", [False, True])
def test_a_schedule_knows_whether_its_last_event_is_open(database: Database, is_given_up: bool) -> None:
    schedule, event_id = made(database), uuid7()
    event = NewEvent(id=event_id, tenant="acme", source="/s", ce_id="1", type="x")
    database.call(events.record, [event], grace_seconds=5)
    database.call(
        schedules.note_ticks, schedule.id, next_at=None, last=(event.time or datetime.now(UTC), event_id), skipped=0
    )
    if is_given_up:
        database.call(operate.discard_event, ANN, event_id, idempotency_key="k")
    make_due(database)

    taken = database.call(schedules.take_due, schedule.id)

    assert taken is not None
    assert taken.is_open is not is_given_up


def test_a_schedule_that_fails_waits_ever_longer_and_keeps_its_tick(database: Database) -> None:
    schedule = made(database)
    make_due(database)
    planned = stored(database).next_at

    waits = []
    for failure in range(1, 12):
        assert database.call(schedules.postpone_schedule, schedule.id, error="KeyError") == failure
        assert database.call(schedules.due_schedules, limit=9) == []
        assert not due_sweeps(database, after_seconds=60).schedules
        waits.append(seconds_until_retry(database))
        run(database, "UPDATE schedule SET retry_at = now()")

    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    found = stored(database)
    assert (found.next_at, found.failures, found.last_error) == (planned, 11, "KeyError")
    database.call(schedules.note_ticks, schedule.id, next_at=planned, last=None, skipped=0)
    assert (stored(database).failures, stored(database).last_error) == (0, None)


def seconds_until_retry(database: Database) -> int:
    """Of a transaction that has just ended: its clock and this one's are less than half a second apart."""
    with database.transaction() as session:
        return int(
            session.execute(text("SELECT round(extract(epoch FROM retry_at - now())) FROM schedule")).scalar_one()
        )


def test_one_that_is_not_due_any_more_is_not_postponed(database: Database) -> None:
    schedule = made(database)

    assert database.call(schedules.postpone_schedule, schedule.id, error="KeyError") is None
    assert database.call(schedules.postpone_schedule, UUID(int=0), error="KeyError") is None
