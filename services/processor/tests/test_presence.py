"""What a processor says of itself, and draining it: with real processes."""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import pytest
from sqlalchemy import text

from holdfast.local.fixtures import Eventually
from holdfast.local.servers import free_port
from holdfast.processor import Handlers
from holdfast.processor.worker.board import Board
from holdfast.processor.worker.crew import Crew
from holdfast.processor.worker.poller import Poller
from holdfast.processor.worker.presence import Presence
from holdfast.processor.worker.slots import Slots
from holdfast.storage import nodes, waiting
from holdfast.storage.audit import Actor
from holdfast.storage.database import Database
from holdfast.storage.declared import declared_handlers
from holdfast.storage.nodes import Identity, NodeView

Start = Callable[..., Any]

ACTOR = Actor("acme", "key")


@pytest.fixture
def begin(start: Start, stored: Any, eventually: Eventually) -> Start:
    """Start a service of two workers, and wait until both are written down."""

    def begin_one(**settings: str) -> Any:
        made = start(**settings)
        eventually(lambda: len(only(stored).workers) == 2, message="both workers are written down")
        return made

    return begin_one


def only(stored: Any) -> NodeView:
    listed = stored.database.call(nodes.list_nodes)
    assert len(listed) == 1, listed
    node: NodeView = listed[0]
    return node


def drain(stored: Any, *, is_draining: bool = True) -> None:
    assert stored.database.call(nodes.set_draining, ACTOR, only(stored).id, is_draining=is_draining)


def has_heard(stored: Any, *, is_draining: bool = True) -> bool:
    return all(worker.is_draining is is_draining for worker in only(stored).workers)


def test_a_processor_says_who_it_is_and_what_it_serves(begin: Start, stored: Any, eventually: Eventually) -> None:
    worker = begin(PROCESSOR_THREADS="3", NODE_NAME="box-7")

    node = only(stored)
    assert (node.service, node.host, node.pid, node.is_stale) == ("processor", "box-7", worker.process.pid, False)
    assert "test.order" in node.types
    assert "order" in {each.name for each in stored.database.call(declared_handlers)}
    assert [(each.name, each.slots, each.is_suspect) for each in node.workers] == [
        ("suspects", 1, True),
        ("worker-0", 3, False),
    ]
    assert sorted(each.pid for each in node.workers) == sorted(worker.children())
    eventually(lambda: only(stored).workers[1].polled_at is not None, message="it has polled")


def test_what_runs_is_seen_and_told_with_the_event(
    begin: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    begin()
    event_id = stored.record("test.endless")
    live.ring((event_id, 1))

    eventually(lambda: only(stored).workers[1].running, message="the run is written down")
    worker = only(stored).workers[1]
    assert [(each.event_id, each.tenant, each.handler, each.attempt) for each in worker.running] == [
        (str(event_id), "acme", "endless", 1)
    ]
    assert worker.busy == 1
    why = stored.database.call(waiting.why, event_id)
    assert (why.reason, why.facts["handler"], why.facts["node"]) == ("running", "endless", only(stored).id)


def test_a_service_that_stops_in_order_is_no_longer_listed(begin: Start, stored: Any) -> None:
    worker = begin()

    worker.process.send_signal(signal.SIGTERM)

    assert worker.process.wait(30) == 0
    assert stored.database.call(nodes.list_nodes) == []


def test_a_killed_service_stays_listed_until_it_is_forgotten(begin: Start, stored: Any) -> None:
    worker = begin()

    worker.kill()
    stored.run("UPDATE node_worker SET beat_at = now() - interval '31 s'")

    assert only(stored).is_stale


def test_a_drained_processor_finishes_what_it_has_and_takes_nothing_new(
    begin: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    begin()
    with stored.database.transaction() as session:  # the handler waits for this lock
        session.execute(text("SELECT pg_advisory_xact_lock(4242)"))
        held = stored.record("test.blocked")
        live.ring((held, 1))
        eventually(lambda: stored.state(held) == "processing")
        drain(stored)
        eventually(lambda: has_heard(stored), message="both workers have heard of it")
        assert not only(stored).is_drained, "it has an event left"
        later = stored.record("test.order", {"order_id": "1", "amount": 1})
        live.ring((later, 1))
    eventually(lambda: stored.state(held) == "processed", message="what it had is finished")
    eventually(lambda: only(stored).is_drained)
    stored.run("UPDATE processing_state SET available_at = now() - interval '1 h' WHERE state = 'queued'")
    seen = max(each.beat_at for each in only(stored).workers)
    eventually(
        lambda: min(each.beat_at for each in only(stored).workers) > seen, timeout_seconds=30, message="time passes"
    )
    assert stored.state(later) == "queued"
    assert stored.database.call(waiting.why, later).reason == "drained"

    drain(stored, is_draining=False)

    eventually(lambda: stored.state(later) == "processed", message="it takes events again")
    assert not only(stored).is_drained


def test_without_a_broker_a_drained_processor_takes_nothing_either(
    begin: Start, stored: Any, closed_url: str, eventually: Eventually
) -> None:
    begin(BROKER_URL=closed_url, REDIS_URL=closed_url)
    eventually(lambda: only(stored).workers[1].is_broker_away, message="it says that the broker is away")
    drain(stored)
    eventually(lambda: has_heard(stored))
    later = stored.record("test.order", {"order_id": "1", "amount": 1})
    seen = only(stored).workers[1].beat_at
    eventually(lambda: only(stored).workers[1].beat_at > seen, timeout_seconds=30, message="time passes")
    assert stored.state(later) == "queued"

    drain(stored, is_draining=False)

    eventually(lambda: stored.state(later) == "processed")


def test_a_worker_that_replaces_a_dead_one_is_drained_before_it_takes_anything(
    begin: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    worker = begin()
    drain(stored)
    eventually(lambda: has_heard(stored))
    later = stored.record("test.order", {"order_id": "1", "amount": 1})
    dead = worker.pid_of_worker()

    os.kill(dead, signal.SIGKILL)

    eventually(lambda: only(stored).workers[1].pid not in (dead, 0), message="the successor is written down")
    live.ring((later, 1))
    eventually(lambda: worker.is_ready(), message="it works")
    assert has_heard(stored)
    assert stored.state(later) == "queued"


def test_a_restarted_service_is_another_node_and_takes_events(
    begin: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    first = begin()
    drain(stored)
    eventually(lambda: has_heard(stored))
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(30) == 0

    begin()
    event_id = stored.record("test.order", {"order_id": "1", "amount": 1})
    live.ring((event_id, 1))

    eventually(lambda: stored.state(event_id) == "processed")


def test_a_row_that_was_forgotten_comes_back_as_the_processor_remembers_it(
    begin: Start, stored: Any, eventually: Eventually
) -> None:
    begin()
    drain(stored)
    eventually(lambda: has_heard(stored))
    stored.run("DELETE FROM node")

    eventually(lambda: len(stored.database.call(nodes.list_nodes)) == 1, message="it is written down anew")

    eventually(lambda: len(only(stored).workers) == 2 and has_heard(stored))
    assert only(stored).drain_since is not None


@pytest.mark.parametrize("is_drained", [True, False])
def test_a_worker_that_cannot_ask_does_as_the_board_remembers(is_drained: bool) -> None:
    board, crew = Board(["worker-0"]), Crew(cast("Any", None), threads=1, most_ahead=0)
    board.note_drained(is_drained=is_drained)
    database = Database(f"postgresql://user:password@127.0.0.1:{free_port()}/name", application_name="test")
    presence = Presence(
        database, Identity(board.node_id, "processor", "box", 1, "1.0", "worker-0", 2), board=board, crew=crew,
        running=list, is_broker_answering=lambda: True, seconds_since_poll=lambda: 0.0,
    )  # fmt: skip

    presence.begin()

    assert crew.slots.is_paused is is_drained
    database.close()


def test_the_board_remembers_the_drain_for_all_processes() -> None:
    board = Board(["worker-0"])
    assert not board.is_drained

    board.note_drained(is_drained=True)
    board.note_started("worker-0")
    assert board.is_drained
    board.note_drained(is_drained=False)

    assert not board.is_drained
    assert len(board.node_id) == 12
    assert board.first_pid == os.getpid()


@pytest.mark.parametrize("is_ahead", [False, True])
def test_paused_slots_are_given_to_nobody_until_they_are_resumed(is_ahead: bool) -> None:
    slots = Slots(2, most_ahead=10 if is_ahead else 0)
    if is_ahead:
        for _ in range(100):
            slots.note_pace(0.001)
    taken = slots.take_free()
    slots.pause()
    slots.give_back(1)
    assert (slots.busy, slots.is_paused) == (1, True)
    assert slots.take_free() == 0
    began = time.monotonic()
    assert slots.take(0.05) == 0
    assert time.monotonic() - began >= 0.05, "it waits, so that who asks does not spin"

    resumed = threading.Timer(0.05, slots.resume)
    resumed.start()

    assert slots.take(5) > 0, "it is woken"
    resumed.join()
    assert taken == 2


def test_a_paused_poller_rests_between_its_looks(executor: Callable[..., Any], eventually: Eventually) -> None:
    made = executor(Handlers())
    crew = Crew(made, threads=2, most_ahead=0)
    crew.slots.pause()
    asked: list[float] = []

    def is_broker_answering() -> bool:
        asked.append(time.monotonic())
        return True

    poller = Poller(
        made, crew, is_suspect=False, is_broker_answering=is_broker_answering,
        is_any_due=lambda seconds: made.is_any_due(is_suspect=False, overdue_seconds=seconds),
    )  # fmt: skip
    poller.start()

    eventually(lambda: len(asked) >= 3)

    assert asked[2] - asked[0] > 1, "about a second between two looks"
    poller.stop_claiming()
