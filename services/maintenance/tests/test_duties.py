"""A process's duties: full batches, outages, two at once; the gauges; the timers, and the look that wakes sweeps."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from holdfast.domain.event import NewGroup
from holdfast.local.fixtures import Eventually
from holdfast.local.servers import Postgres
from holdfast.maintenance.duties import Duties
from holdfast.maintenance.timers import Sweeps, Timers
from holdfast.runtime.ids import uuid7
from holdfast.runtime.settings import MaintenanceSettings
from holdfast.runtime.telemetry import Log, Metrics
from holdfast.storage import nodes
from holdfast.storage.database import Database
from holdfast.storage.groups import groups_of, record_group
from holdfast.storage.migrate import upgrade
from holdfast.storage.nodes import Identity

MakeDuties = Callable[..., Duties]


@pytest.fixture
def make_duties(database_url: str, redis_url: str) -> Iterator[MakeDuties]:
    made: list[Duties] = []

    def make(**settings: Any) -> Duties:
        urls = {
            "database_url": SecretStr(database_url),
            "broker_url": SecretStr(redis_url),
            "redis_url": SecretStr(redis_url),
        }
        made.append(Duties(MaintenanceSettings(**(urls | settings))))
        return made[-1]

    yield make
    for duties in made:
        duties.close()


def at_once(*calls: Callable[[], int]) -> list[int]:
    """Run calls in threads that begin together; returns their answers."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], int]) -> int:
        barrier.wait(10)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_a_turn_goes_on_while_batches_are_full(make_duties: MakeDuties, events: Any) -> None:
    event_ids = events.lost(5)

    assert make_duties(sweep_limit=2).recover() == 5

    assert {events.row(event_id).state for event_id in event_ids} == {"queued"}


def test_two_sweeps_at_once_recover_each_event_once(make_duties: MakeDuties, events: Any) -> None:
    event_ids = events.lost(40)
    first, second = make_duties(sweep_limit=7), make_duties(sweep_limit=7)

    recovered = at_once(first.recover, second.recover, first.recover, second.recover)

    assert sum(recovered) == 40
    rows = [events.row(event_id) for event_id in event_ids]
    assert {(row.state, row.version, row.crashes) for row in rows} == {("queued", 3, 1)}


def test_two_redispatches_at_once_ring_once_for_each_event(make_duties: MakeDuties, events: Any, in_redis: Any) -> None:
    event_ids = events.record(40)
    first, second = make_duties(sweep_limit=7), make_duties(sweep_limit=7)

    rung = at_once(first.redispatch, second.redispatch, first.redispatch, second.redispatch)

    assert sum(rung) == 40
    assert Counter(in_redis.doorbells()) == Counter((event_id, 1) for event_id in event_ids)


def test_two_relays_at_once_publish_each_update_once(make_duties: MakeDuties, events: Any, in_redis: Any) -> None:
    event_ids = events.record(40)
    events.age_updates()
    first, second = make_duties(), make_duties()

    at_once(first.relay, second.relay, first.relay, second.relay)

    assert [len(in_redis.published(event_id)) for event_id in event_ids] == [1] * 40


def test_a_database_outage_ends_the_turn_and_the_next_one_works(
    make_duties: MakeDuties, own_postgres: Postgres
) -> None:
    upgrade(own_postgres.url())
    duties = make_duties(database_url=SecretStr(own_postgres.url()))
    duties.recover()
    own_postgres.stop()

    with capture_logs() as logged:
        assert [duties.recover(), duties.redispatch(), duties.relay(), duties.measure()] == [0, 0, 0, 0]

    own_postgres.start()
    assert duties.recover() == 0
    assert [line["event"] for line in logged] == [Log.DATABASE_UNAVAILABLE] * 4


def test_one_outage_is_one_warning_a_duty(make_duties: MakeDuties, closed_url: str) -> None:
    duties = make_duties(broker_url=SecretStr(closed_url))

    with capture_logs() as logged:
        for _ in range(3):
            duties.redispatch()

    assert [(line["event"], line["log_level"]) for line in logged] == [
        (Log.REDIS_UNAVAILABLE, "warning"), (Log.REDIS_UNAVAILABLE, "debug"), (Log.REDIS_UNAVAILABLE, "debug"),
    ]  # fmt: skip


def test_a_look_says_which_duties_have_something_to_do(make_duties: MakeDuties, events: Any) -> None:
    duties = make_duties(relay_after_seconds=60)
    events.execute("UPDATE outbox_cursor SET until_at = now()")  # that of an older database is ripe at once
    events.execute("UPDATE statistics_cursor SET counted_at = now() - interval '1 min'")
    assert list(duties.due()) == []

    events.lost()
    assert list(duties.due()) == ["recover", "count"]
    assert duties.count() == 2
    assert list(duties.due()) == ["recover"]
    events.make_due(*events.record(due_seconds=300))
    events.age_updates()
    events.finished()
    events.begin_replay()

    assert list(duties.due()) == ["recover", "redispatch", "relay", "replay"]
    events.schedule()
    assert list(duties.due()) == ["recover", "redispatch", "relay", "replay", "schedules"]
    assert duties.schedules() == 1
    assert "schedules" not in duties.due()


def test_every_duty_has_its_turn_while_nobody_can_say_what_is_due_and_tells_each_outage(
    make_duties: MakeDuties, own_postgres: Postgres
) -> None:
    upgrade(own_postgres.url())
    duties = make_duties(database_url=SecretStr(own_postgres.url()))
    warnings = []
    for _ in range(2):
        own_postgres.stop()
        with capture_logs() as logged:
            assert [sweep() for sweep in map(duties.sweeps().__getitem__, duties.due())] == [0] * 8
        warnings.append([line["event"] for line in logged if line["log_level"] == "warning"])
        own_postgres.start()
        assert list(duties.due()) == []

    assert warnings == [[Log.DATABASE_UNAVAILABLE] * 8] * 2


def test_the_gauges_tell_open_events_and_the_oldest_due_one(make_duties: MakeDuties, events: Any) -> None:
    [waiting, leased] = events.record(2)
    events.claim(leased)
    events.execute("UPDATE processing_state SET available_at = now() - interval '90 s' WHERE event_id = :id", waiting)

    assert make_duties().measure() == 2

    assert gauge(Metrics.pending.labels("queued")) == 1
    assert gauge(Metrics.pending.labels("processing")) == 1
    assert gauge(Metrics.pending.labels("failed")) == 0
    assert gauge(Metrics.oldest_due_seconds) == pytest.approx(90, abs=5)


def gauge(metric: Any) -> float:
    return float(metric.collect()[0].samples[0].value)


def test_a_timer_whose_duty_hangs_is_not_alive(eventually: Eventually) -> None:
    hanging, release = threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        release.wait(30)

    timers = Timers({"hang": (hang, 0.01)})
    timers.start()
    assert hanging.wait(5)
    try:
        assert timers.are_alive()
        eventually(lambda: not timers.are_alive(longest_turn_seconds=0.05), message="a hanging duty goes unnoticed")
    finally:
        release.set()
        timers.stop()


def test_a_timer_whose_duty_fails_goes_on(eventually: Eventually) -> None:
    turns: list[int] = []

    def fail() -> None:
        turns.append(1)
        raise ValueError("on purpose")

    timers = Timers({"fail": (fail, 0.01)})
    timers.start()
    eventually(lambda: len(turns) >= 3)
    assert timers.are_alive()
    timers.stop()
    assert not timers.are_alive()


def test_a_sweep_runs_at_once_and_then_when_a_look_finds_that_it_is_due(eventually: Eventually) -> None:
    due: set[str] = set()
    turns: Counter[str] = Counter()

    def count(name: str) -> int:
        turns[name] += 1
        return 0

    sweeps = Sweeps({"one": lambda: count("one"), "other": lambda: count("other")}, lambda: due)
    sweeps.start()
    eventually(lambda: turns == {"one": 1, "other": 1})

    sweeps.look()
    due.add("one")
    for expected in (2, 3):
        sweeps.look()
        eventually(lambda: turns["one"] == expected, message="due, so it has a turn")  # noqa: B023 (called at once)

    assert turns["other"] == 1
    assert sweeps.are_alive()
    sweeps.stop()
    assert not sweeps.are_alive()


def test_a_sweep_that_did_something_has_another_turn_and_one_that_fails_goes_on(eventually: Eventually) -> None:
    answers = iter([2, 0])
    turns: list[int] = []
    failed: list[int] = []

    def work() -> int:
        turns.append(next(answers))
        return turns[-1]

    def fail() -> int:
        failed.append(1)
        raise ValueError("on purpose")

    sweeps = Sweeps({"work": work, "fail": fail}, lambda: ["fail"])
    sweeps.start()
    eventually(lambda: turns == [2])
    eventually(lambda: len(failed) == 1)
    for expected in (2, 3, 4):
        sweeps.look()
        eventually(lambda: len(failed) == expected)  # noqa: B023 (called at once)

    eventually(lambda: turns == [2, 0], message="a turn that finds nothing, and then no other")
    assert sweeps.are_alive()
    sweeps.stop()


def test_a_sweep_that_hangs_is_not_alive_and_keeps_no_other_one_from_its_turns(eventually: Eventually) -> None:
    hanging, release = threading.Event(), threading.Event()
    turns: list[int] = []

    def hang() -> int:
        hanging.set()
        release.wait(30)
        return 0

    def work() -> int:
        turns.append(1)
        return 0

    sweeps = Sweeps({"hang": hang, "work": work}, lambda: ["hang", "work"])
    sweeps.start()
    assert hanging.wait(5)
    try:
        eventually(lambda: turns == [1])
        sweeps.look()
        eventually(lambda: turns == [1, 1])
        assert sweeps.are_alive()
        eventually(lambda: not sweeps.are_alive(longest_turn_seconds=0.05), message="a hanging sweep goes unnoticed")
    finally:
        release.set()
        sweeps.stop()


def test_a_process_is_listed_and_leaves_in_order(make_duties: MakeDuties, database: Database) -> None:
    duties = make_duties(node_name="box-9")

    duties.measure()
    duties.measure()

    [node] = database.call(nodes.list_nodes)
    assert (node.service, node.host, len(node.workers)) == ("maintenance", "box-9", 1)
    assert not node.is_stale
    duties.close()
    assert database.call(nodes.list_nodes) == []


def test_members_that_a_release_before_has_not_counted_are_counted(
    make_duties: MakeDuties, events: Any, database: Database
) -> None:
    parent_id, member_id = events.record(2)
    group = NewGroup(id=uuid7(), tenant="acme", parent_id=parent_id, type="all.done")
    with database.transaction() as session:
        record_group(session, group, [member_id])
    events.execute(
        "UPDATE processing_state SET state = 'processed', finished_at = now(), group_id = (SELECT id FROM event_group)"
        " WHERE event_id = :id RETURNING event_id",
        member_id,
    )
    duties = make_duties()

    assert [duties.count_groups() for _ in range(2)] == [1, 0]
    [counted] = database.call(groups_of, parent_id)
    assert (counted.processed, counted.open) == (1, 0)


def test_windows_that_have_ended_are_forgotten(make_duties: MakeDuties, events: Any) -> None:
    events.execute(
        "INSERT INTO event_window (id, tenant, kind, until) SELECT gen_random_uuid(), 't', 'unique',"
        " now() + make_interval(secs => n * 60) FROM generate_series(-2, 1) n WHERE n <> 0"
    )

    assert [make_duties(sweep_limit=1).prune() for _ in range(2)] == [2, 0]


def test_nodes_that_say_nothing_any_more_are_forgotten(
    make_duties: MakeDuties, database: Database, events: Any
) -> None:
    duties = make_duties()
    for node_id in ("0" * 12, "1" * 12):
        who = Identity(node_id, "processor", "box", 1, "1.0", "worker-0", 2)
        database.call(nodes.enter, who, is_drained=False)
    events.execute("UPDATE node SET started_at = now() - interval '1 h'")
    events.execute("UPDATE node_worker SET beat_at = now() - interval '11 min' WHERE node_id = '000000000000'")

    assert duties.prune() == 1

    assert [node.id for node in database.call(nodes.list_nodes)] == ["1" * 12]
