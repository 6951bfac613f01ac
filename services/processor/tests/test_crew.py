"""Events that wait for a thread: claimed together while threads are quick, and given back when they are not."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from holdfast.local.fixtures import Eventually
from holdfast.processor.worker.slots import Slots
from holdfast.storage.database import Database

Start = Callable[..., Any]

LOCK = 4242
"""That of ``sample_handlers``."""

GIVEN_BACK = "SELECT count(DISTINCT event_id) FROM event_update WHERE detail->>'reason' = 'released'"


@contextmanager
def blocked(database: Database) -> Iterator[None]:
    """Keep ``test.blocked`` waiting."""
    with database.transaction() as session:
        session.connection().exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
        yield


def be_quick(stored: Any, live: Any, eventually: Eventually) -> None:
    """Let the worker see that its threads are done with each event in no time."""
    event_ids = [stored.record("test.nothing") for _ in range(300)]
    live.ring(*((each, 1) for each in event_ids))
    eventually(lambda: stored.count("processed") == len(event_ids), timeout_seconds=60)


def crowd(stored: Any, live: Any, eventually: Eventually) -> tuple[list[UUID], list[UUID]]:
    """Events that block both threads, and others behind them, of which some are claimed."""
    blocking = [stored.record("test.blocked") for _ in range(2)]
    others = [stored.record("test.nothing") for _ in range(20)]
    live.ring(*((each, 1) for each in (*blocking, *others)))
    eventually(lambda: all(stored.state(each) == "processing" for each in blocking), message="both threads are blocked")
    return blocking, others


def test_events_that_wait_for_blocked_threads_are_left_to_another_process(
    start: Start, stored: Any, live: Any, database: Database, eventually: Eventually
) -> None:
    start(PROCESSOR_THREADS="2")
    be_quick(stored, live, eventually)
    with blocked(database):
        blocking, others = crowd(stored, live, eventually)
        eventually(lambda: stored.scalar(GIVEN_BACK) > 0, message="some had been claimed")

        start(PROCESSOR_THREADS="2")

        eventually(lambda: all(stored.state(each) == "processed" for each in others))
        assert [stored.state(each) for each in blocking] == ["processing"] * 2
    assert {(stored.row(each).attempt, stored.row(each).crashes) for each in others} == {(1, 0)}, "it cost no attempt"
    assert stored.scalar("SELECT count(*) - count(DISTINCT event_id) FROM processed_event_log") == 0


def test_a_worker_that_stops_gives_back_what_waits_for_a_thread(
    start: Start, stored: Any, live: Any, database: Database, eventually: Eventually
) -> None:
    worker = start(PROCESSOR_THREADS="2", SHUTDOWN_SECONDS="20")
    be_quick(stored, live, eventually)
    with blocked(database):
        _, others = crowd(stored, live, eventually)

        worker.process.send_signal(signal.SIGTERM)

        eventually(lambda: stored.count("processing") == 2, timeout_seconds=5, message="those that wait are given back")
        assert worker.process.poll() is None, "before its grace is over"
    assert worker.process.wait(30) == 0
    assert stored.count("processing") == 0
    assert {(stored.row(each).attempt, stored.row(each).crashes) for each in others} <= {(0, 0), (1, 0)}
    start()
    eventually(lambda: stored.count("processed") == 322, timeout_seconds=60)


def quick(slots: Slots) -> None:
    for _ in range(100):
        slots.note_pace(0.001)


def test_reserved_slots_are_for_urgent_events() -> None:
    slots = Slots(3, reserved=1)

    assert slots.take(0) == 2
    assert (slots.take(0), slots.take_free()) == (0, 0)
    assert slots.take_for_urgent() == 1
    assert slots.take_for_urgent() == 0
    slots.give_back(1)
    assert (slots.take(0), slots.take_free()) == (0, 0), "one is kept free again"
    slots.give_back(1)
    assert slots.take_free() == 1
    assert Slots(3).take_for_urgent() == 0


def test_while_threads_are_quick_there_is_room_for_events_that_wait() -> None:
    slots = Slots(8, most_ahead=64)
    assert slots.take(0) == 8

    quick(slots)

    assert slots.take(0) == 64


def test_room_for_those_that_wait_is_refilled_by_half_and_for_an_idle_thread_at_once() -> None:
    slots = Slots(8, most_ahead=64)
    quick(slots)
    assert slots.take(0) == 72

    slots.give_back(31)
    assert slots.take(0) == 0
    slots.give_back(1)
    assert slots.take(0) == 32
    slots.give_back(64)
    slots.slow_down()
    assert slots.take(0) == 0, "eight run, and none may wait"
    slots.give_back(1)
    assert slots.take(0) == 1


def test_no_event_waits_beside_a_suspect_or_where_events_take_long() -> None:
    suspects, slow = Slots(1), Slots(8, most_ahead=64)
    quick(suspects)
    for _ in range(100):
        slow.note_pace(1.0)

    assert suspects.take(0) == 1
    assert suspects.take(0) == 0
    assert slow.take(0) == 8
    assert slow.take(0) == 0


def test_a_poll_takes_what_threads_are_free_for_and_no_more() -> None:
    slots = Slots(8, most_ahead=64)
    quick(slots)
    slots.take(0)
    assert slots.take_free() == 0

    slots.give_back(66)

    assert slots.take_free() == 2
