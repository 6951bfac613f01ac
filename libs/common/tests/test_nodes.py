"""What workers say of themselves, draining, and forgetting those that are gone."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from holdfast.local.fixtures import Eventually
from holdfast.storage import nodes
from holdfast.storage.audit import Actor
from holdfast.storage.database import Database
from holdfast.storage.nodes import Beat, Identity, NodeView, NotDrainable, Running
from holdfast.storage.sweeps import look_after

ACTOR = Actor("acme", "k1")

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"

WHO = Identity("0123456789ab", "processor", "box", 10, "1.0", "worker-0", 11, slots=8, types=("b", "a.*"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, application_name="test", pool_size=4)
    yield made
    made.close()


def only(database: Database) -> NodeView:
    [node] = database.call(nodes.list_nodes)
    return node


def drained(database: Database) -> bool | None:
    """As processors ask it."""
    return look_after(database, node_id=WHO.node_id, expired_for_seconds=0).is_drained


def run(database: Database, sql: str) -> Any:
    with database.transaction() as session:
        return session.execute(text(sql))


def test_a_worker_is_seen_with_all_that_it_said(database: Database) -> None:
    assert database.call(nodes.enter, WHO, is_drained=False) is False
    run_ = Running(str(uuid4()), "acme", "order", 2, "2026-11-28T09:30:00+00:00")

    assert nodes.beat(database, WHO, Beat(busy=9, is_broker_away=True, running=(run_,)), polled_seconds=2.0)

    node = only(database)
    [worker] = node.workers
    assert (node.id, node.host, node.pid, node.version, list(node.types)) == (
        WHO.node_id,
        "box",
        10,
        "1.0",
        ["a.*", "b"],
    )
    assert (worker.slots, worker.busy, worker.is_broker_away, worker.is_stale) == (8, 9, True, False)
    assert worker.running == [run_]
    assert worker.polled_at is not None
    assert (worker.beat_at - worker.polled_at).total_seconds() == 2


def test_a_beat_of_a_worker_that_is_not_written_down_says_so(database: Database) -> None:
    assert nodes.beat(database, WHO, Beat(), polled_seconds=None) is False

    database.call(nodes.enter, WHO, is_drained=False)
    assert nodes.beat(database, replace(WHO, pid=12), Beat(), polled_seconds=None) is False, "of a predecessor"


def test_what_runs_is_bounded(database: Database) -> None:
    database.call(nodes.enter, WHO, is_drained=False)
    run_ = Running(str(uuid4()), "acme", "order", 1, "2026-11-28T09:30:00+00:00")

    nodes.beat(database, WHO, Beat(running=(run_,) * 100), polled_seconds=None)

    assert len(only(database).workers[0].running) == 64


def test_a_replaced_worker_takes_the_row_over_and_the_drain_stays(database: Database) -> None:
    database.call(nodes.enter, WHO, is_drained=False)
    database.call(nodes.set_draining, ACTOR, WHO.node_id, is_draining=True)

    assert database.call(nodes.enter, replace(WHO, pid=12), is_drained=False) is True

    node = only(database)
    assert [(worker.pid, worker.is_draining) for worker in node.workers] == [(12, True)]
    assert node.is_drained


def test_a_drain_is_seen_by_the_next_look_and_audited_once(database: Database) -> None:
    database.call(nodes.enter, WHO, is_drained=False)
    assert drained(database) is False

    for _ in range(2):
        database.call(nodes.set_draining, ACTOR, WHO.node_id, is_draining=True)
    assert drained(database) is True
    assert not only(database).is_drained, "its worker has not heard of it"
    nodes.beat(database, WHO, Beat(busy=1, is_draining=True), polled_seconds=None)
    assert not only(database).is_drained, "it has an event left"
    nodes.beat(database, WHO, Beat(is_draining=True), polled_seconds=None)
    assert only(database).is_drained
    for _ in range(2):
        database.call(nodes.set_draining, ACTOR, WHO.node_id, is_draining=False)

    assert drained(database) is False
    rows = run(database, "SELECT actor, action, detail->>'node' FROM audit_log ORDER BY id").all()
    assert [tuple(row) for row in rows] == [("k1", "drain_node", WHO.node_id), ("k1", "undrain_node", WHO.node_id)]


def test_only_processors_that_are_there_are_drained(database: Database) -> None:
    assert database.call(nodes.set_draining, ACTOR, "nobody", is_draining=True) is None
    database.call(nodes.enter, replace(WHO, service="maintenance"), is_drained=False)

    with pytest.raises(NotDrainable):
        database.call(nodes.set_draining, ACTOR, WHO.node_id, is_draining=True)


def test_a_node_that_was_forgotten_while_it_was_frozen_comes_back_drained(database: Database) -> None:
    database.call(nodes.enter, WHO, is_drained=False)
    database.call(nodes.set_draining, ACTOR, WHO.node_id, is_draining=True)
    run(database, "UPDATE node SET started_at = now() - interval '1 h'")
    run(database, "UPDATE node_worker SET beat_at = now() - interval '11 min'")
    assert only(database).is_stale

    assert database.call(nodes.forget_gone, limit=10) == 1
    assert look_after(database, node_id=WHO.node_id, expired_for_seconds=0).is_drained is None
    assert database.call(nodes.enter, WHO, is_drained=True) is True

    assert only(database).drain_since is not None


def test_a_node_of_which_one_worker_speaks_is_not_forgotten(database: Database) -> None:
    for name in ("worker-0", "suspects"):
        database.call(nodes.enter, replace(WHO, worker=name), is_drained=False)
    run(database, "UPDATE node SET started_at = now() - interval '1 h'")
    run(database, "UPDATE node_worker SET beat_at = now() - interval '11 min' WHERE name = 'suspects'")

    assert database.call(nodes.forget_gone, limit=10) == 0
    assert [worker.is_stale for worker in only(database).workers] == [True, False]
    assert not only(database).is_stale


def test_of_two_workers_that_leave_at_once_the_second_takes_the_node_along(
    database: Database, eventually: Eventually
) -> None:
    workers = [replace(WHO, worker=f"worker-{number}", pid=number) for number in range(2)]
    for each in workers:
        database.call(nodes.enter, each, is_drained=False)
    database.call(nodes.leave, replace(workers[0], pid=99))
    assert len(only(database).workers) == 2, "a predecessor's goodbye is not the successor's"

    with ThreadPoolExecutor(1) as pool, database.transaction() as session:
        nodes.leave(session, workers[0])
        other = pool.submit(database.call, nodes.leave, workers[1])
        eventually(lambda: run(database, WAITING).scalar() == 1, message="the second goodbye waits for the first")
        session.commit()
        other.result(10)

    assert database.call(nodes.list_nodes) == []
