"""Threads beside a service's own."""

import threading
from collections.abc import Sized
from functools import partial

from structlog.testing import capture_logs

from holdfast.local.fixtures import Eventually
from holdfast.runtime.background import Batcher, Repeater
from holdfast.runtime.telemetry import Log


def len_is(items: Sized, length: int) -> bool:
    return len(items) == length


def test_a_duty_runs_at_once_and_again(eventually: Eventually) -> None:
    turns: list[int] = []
    repeater = Repeater("count", lambda: turns.append(1), interval_seconds=0.01)

    repeater.start()

    eventually(lambda: len(turns) >= 3)
    repeater.stop()
    ended = len(turns)
    assert not repeater.is_alive
    assert len(turns) == ended


def test_a_duty_that_raises_is_logged_and_runs_again(eventually: Eventually) -> None:
    turns: list[int] = []

    def fail() -> None:
        turns.append(1)
        raise ValueError("on purpose")

    repeater = Repeater("fail", fail, interval_seconds=0.01)
    with capture_logs() as logged:
        repeater.start()
        eventually(lambda: len(turns) >= 2)
        repeater.stop()

    assert logged[0]["event"] == Log.BACKGROUND_FAILED
    assert logged[0]["duty"] == "fail"


def test_stopping_lets_the_turn_under_way_end() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        go_on.wait(10)
        ended.set()

    repeater = Repeater("slow", slow, interval_seconds=60)
    repeater.start()
    assert begun.wait(5)
    stopping = threading.Thread(target=repeater.stop)
    stopping.start()
    go_on.set()
    stopping.join(5)

    assert ended.is_set()
    assert not repeater.is_alive


def test_stopping_does_not_wait_for_the_interval() -> None:
    repeater = Repeater("rare", lambda: None, interval_seconds=3600)
    repeater.start()

    repeater.stop(timeout_seconds=5)

    assert not repeater.is_alive


def test_items_arrive_in_order_in_lists(eventually: Eventually) -> None:
    flushed: list[list[int]] = []
    batcher: Batcher[int] = Batcher("items", flushed.append, interval_seconds=0.01, batch_limit=4)
    for number in range(10):
        batcher.add(number)

    batcher.start()

    eventually(lambda: sum(map(len, flushed)) == 10)
    batcher.stop()
    assert flushed == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_stopping_flushes_what_is_left() -> None:
    flushed: list[list[int]] = []
    batcher: Batcher[int] = Batcher("items", flushed.append, interval_seconds=3600)
    batcher.start()
    batcher.add(1)

    batcher.stop()

    assert flushed == [[1]]


def test_a_list_whose_flush_raises_is_dropped_and_the_next_one_goes_on(eventually: Eventually) -> None:
    seen: list[list[int]] = []

    def flush(items: list[int]) -> None:
        seen.append(items)
        if items == [1]:
            raise ValueError("on purpose")

    batcher: Batcher[int] = Batcher("items", flush, interval_seconds=0.01)
    with capture_logs():
        batcher.add(1)
        batcher.start()
        eventually(lambda: seen == [[1]])
        batcher.add(2)
        eventually(lambda: seen == [[1], [2]])
        batcher.stop()


def test_a_full_backlog_drops_new_items_without_waiting() -> None:
    flushed: list[list[int]] = []
    batcher: Batcher[int] = Batcher("items", flushed.append, interval_seconds=3600, backlog_limit=2)
    for number in range(5):
        batcher.add(number)

    batcher.start()
    batcher.stop()

    assert flushed == [[0, 1]]


def test_stopping_with_a_flush_that_raises_does_not_raise() -> None:
    def flush(_: list[int]) -> None:
        raise ValueError("on purpose")

    batcher: Batcher[int] = Batcher("items", flush, interval_seconds=3600)
    batcher.start()
    batcher.add(1)

    with capture_logs() as logged:
        batcher.stop()

    assert [line["event"] for line in logged] == [Log.BACKGROUND_FAILED]


def test_a_duty_that_is_not_needed_sleeps_until_it_is(eventually: Eventually) -> None:
    looks: list[int] = []
    turns: list[int] = []
    is_needed = threading.Event()

    def look() -> bool:
        looks.append(1)
        return is_needed.is_set()

    repeater = Repeater("on demand", lambda: turns.append(1), interval_seconds=0.01, is_needed=look)
    repeater.start()
    eventually(lambda: looks)
    for woken in range(2, 5):  # each of them would have taken an interval, had it gone by the clock
        repeater.wake()
        eventually(partial(len_is, looks, woken))
    assert not turns

    is_needed.set()
    repeater.wake()
    eventually(lambda: len(turns) >= 3)

    is_needed.clear()
    repeater.stop()
    assert not repeater.is_alive


def test_what_is_added_while_a_batcher_sleeps_is_flushed(eventually: Eventually) -> None:
    flushed: list[list[int]] = []
    batcher: Batcher[int] = Batcher("items", flushed.append, interval_seconds=0.01)
    batcher.start()

    for number in range(50):
        batcher.add(number)
        eventually(partial(len_is, flushed, number + 1))  # each is alone: the one before it has been flushed

    batcher.stop()
