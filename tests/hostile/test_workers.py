"""Handlers that hang, fork, and spoil their process: the worker goes within its grace, and every other event is processed."""

import contextlib
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.chaos.stacks import EFFECT, Replica, Rows, fill, held_lock, replica, ring
from tests.chaos.unguarded import is_alive

from holdfast.local.fixtures import Eventually
from holdfast.local.process import children_by_parent, log_lines
from holdfast.local.stack import Stack
from holdfast.processor.worker.child import KILL_SECONDS

from .worker_handlers import LOCK, SPOILERS

pytestmark = pytest.mark.xdist_group("hostile-workers")

GRACE_SECONDS = 2
TIMES = 10

MARGIN_SECONDS = 12
"""What a busy machine may add. The slowest one seen added 4.3."""

GONE_SECONDS = 1 + KILL_SECONDS + MARGIN_SECONDS
"""The grace, the time after which the supervisor kills, and what a busy machine takes to look."""

FINAL = ("processed", "dead")


@pytest.fixture(scope="module")
def stack(server_folder: Path) -> Iterator[Stack]:
    """A stack whose own processor is down: each test starts the one that it is hard on."""
    settings = {
        "HOLDFAST_HANDLERS": "worker_handlers:handlers",
        "HOLDFAST_PROCESSOR_PROCESSES": "1",
        "HOLDFAST_LEASE_SECONDS": "600",  # what depends on a lease that ends takes too long to pass
        "HOLDFAST_SHUTDOWN_SECONDS": str(GRACE_SECONDS),
    }
    with Stack(server_folder / "hostile-workers", settings=settings, python_path=str(Path(__file__).parent)) as stack:
        stack.postgres.execute(EFFECT, database="holdfast")
        stack.hold("processor")
        yield stack


@pytest.fixture
def rows(stack: Stack) -> Iterator[Rows]:
    # Not TRUNCATE, whose locks on whole tables may meet those of a sweep in another order.
    stack.postgres.execute("DELETE FROM event; DELETE FROM effect", database="holdfast")
    with contextlib.closing(Rows(stack.database_url)) as rows:
        yield rows


@pytest.fixture
def launch(stack: Stack) -> Iterator[Callable[..., Replica]]:
    """Start a processor, with settings without ``HOLDFAST_``."""
    with contextlib.ExitStack() as running:
        yield lambda **settings: running.enter_context(replica(stack, "processor", **settings))


def send(stack: Stack, type_: str, count: int = 1, **data: Any) -> list[str]:
    """Record events and ring for them."""
    event_ids = fill(stack.database_url, count, type_, data)
    ring(stack, event_ids)
    return event_ids


def logged(processor: Replica, message: str) -> list[dict[str, Any]]:
    return [line for line in log_lines(processor.process.log) if line["message"] == message]


def has_logged(processor: Replica, message: str, times: int) -> bool:
    return len(logged(processor, message)) == times


def are_gone(pids: Sequence[int]) -> bool:
    return not any(map(is_alive, pids))


def is_processed(rows: Rows, event_id: str) -> bool:
    return rows.state(event_id) == "processed"


def status_of(processor: Replica, path: str) -> int:
    try:
        with urllib.request.urlopen(processor._metrics_url + path, timeout=10) as answer:  # noqa: S310 (our own address)
            return int(answer.status)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code


def stop(processor: Replica) -> int:
    """SIGTERM to the service; its exit status."""
    processor.process.end_by(signal.SIGTERM)
    assert processor.process.status is not None
    return processor.process.status


AT_WORK = [
    ("hostile.progress", 1), ("hostile.progress", 5), ("hostile.busy", 5), ("hostile.locked", 5), ("hostile.asleep", 5),
    ("hostile.asleep-in-transaction", 5), ("hostile.computing", 1), ("hostile.swallowing", 2), ("hostile.pool", 2),
]  # fmt: skip


@pytest.mark.parametrize(("type_", "count"), AT_WORK)
def test_what_sigterm_interrupts_is_released_and_no_crash_is_counted(
    stack: Stack, rows: Rows, launch: Callable[..., Replica], eventually: Eventually, type_: str, count: int
) -> None:
    processor = launch()

    assert_released(stack, rows, processor, eventually, type_, count, grace_seconds=GRACE_SECONDS)


def test_loops_are_waited_for_until_the_grace_ends_though_most_threads_are_idle(
    stack: Stack, rows: Rows, launch: Callable[..., Replica], eventually: Eventually
) -> None:
    processor = launch(PROCESSOR_THREADS="24", SHUTDOWN_SECONDS="6")

    assert_released(stack, rows, processor, eventually, "hostile.progress", 5, grace_seconds=6)


def assert_released(
    stack: Stack,
    rows: Rows,
    processor: Replica,
    eventually: Eventually,
    type_: str,
    count: int,
    *,
    grace_seconds: float,
) -> None:
    """Stop the processor while that many handlers are at work: it takes the grace, and the events are as new."""
    with held_lock(stack, LOCK):
        event_ids = send(stack, type_, count)
        eventually(lambda: len(logged(processor, "at work")) == count, message="the handlers are at work")

        began = time.monotonic()
        status = stop(processor)

        assert time.monotonic() - began < grace_seconds + MARGIN_SECONDS
        assert {rows.standing(each) for each in event_ids} == {("queued", 0, 0)}
    assert status == 0
    assert len(logged(processor, "handler interrupted by the shutdown; event given back")) == count


@pytest.fixture
def processor(launch: Callable[..., Replica]) -> Replica:
    """With room for whatever a test starts."""
    return launch(PROCESSOR_THREADS="12", SHUTDOWN_SECONDS="1")


def worker_of(processor: Replica) -> int:
    """Process id of the worker that is not for suspects: the one that has been started last."""
    return max(children_by_parent().get(processor.process.pid, []))


def ring_again(stack: Stack, rows: Rows, event_ids: Sequence[str]) -> None:
    """Ring for events at the version that they are at."""
    for event_id in event_ids:
        [(version,)] = rows.query("SELECT version FROM processing_state WHERE event_id = %s", event_id)
        ring(stack, [event_id], version=version)


def assert_works(stack: Stack, rows: Rows, eventually: Eventually, *, count: int = 3) -> None:
    """Events that come later are processed."""
    later = send(stack, "hostile.plain", count)
    eventually(lambda: rows.count("processed", later) == count, message="later events are processed")
    assert {rows.standing(each) for each in later} == {("processed", 1, 0)}


def test_ten_times_a_worker_with_hanging_handlers_is_gone_within_its_grace_and_loses_nothing(
    stack: Stack, rows: Rows, processor: Replica, eventually: Eventually
) -> None:
    hanging = [*send(stack, "hostile.pool", 3), *send(stack, "hostile.progress", 5)]
    for turn in range(1, TIMES + 1):
        eventually(partial(has_logged, processor, "at work", turn * len(hanging)), message="they are at work")
        worker = worker_of(processor)
        family = [worker, *(child for line in logged(processor, "at work") for child in line.get("children", []))]
        assert_works(stack, rows, eventually, count=1)

        processor.process.send(signal.SIGTERM, pid=worker)

        eventually(partial(are_gone, family), timeout_seconds=GONE_SECONDS, message="all are gone")
        assert {rows.standing(each) for each in hanging} == {("queued", 0, 0)}
        ring_again(stack, rows, hanging)
    assert_works(stack, rows, eventually)


def test_ten_handlers_that_hang_beyond_their_timeout_cost_a_worker_and_no_crash(
    stack: Stack, rows: Rows, processor: Replica, eventually: Eventually
) -> None:
    beside = send(stack, "hostile.progress")
    hanging = send(stack, "hostile.soon-stuck", TIMES)
    eventually(lambda: len(logged(processor, "at work")) == TIMES + 1, message="they are at work")
    worker = worker_of(processor)

    eventually(lambda: not is_alive(worker), timeout_seconds=60, message="the worker is gone")

    eventually(lambda: rows.count("dead", hanging) == TIMES, message="their attempts have failed")
    assert {rows.standing(each) for each in hanging} == {("dead", 1, 0)}
    assert {reason for (reason,) in rows.query("SELECT error_type FROM attempt_error")} == {"timeout"}
    assert_works(stack, rows, eventually)
    assert rows.standing(beside[0])[2] == 0
    assert status_of(processor, "/livez") == 200


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("processor")
def test_ten_times_a_pool_that_hangs_for_its_timeout_of_five_seconds_is_tried_again_and_processed(
    stack: Stack, rows: Rows, eventually: Eventually
) -> None:
    for _ in range(TIMES):
        [hanging] = send(stack, "hostile.pool")

        eventually(partial(is_processed, rows, hanging), timeout_seconds=80)

        assert rows.standing(hanging) == ("processed", 2, 0)
        assert_works(stack, rows, eventually)


def test_a_worker_that_runs_no_python_any_more_is_killed_when_the_grace_is_over(
    stack: Stack, processor: Replica, eventually: Eventually, tmp_path: Path
) -> None:
    send(stack, "hostile.frozen", marker=str(tmp_path / "frozen"))
    eventually(lambda: (tmp_path / "frozen").exists())
    family = processor.process.pids()

    began = time.monotonic()
    status = stop(processor)

    assert time.monotonic() - began < 1 + KILL_SECONDS + MARGIN_SECONDS
    assert status == 1
    assert len(logged(processor, "worker process outlived the grace and was killed")) == 1
    assert are_gone(family)


@pytest.mark.soak
def test_a_worker_that_runs_no_python_any_more_is_replaced_after_a_minute(
    stack: Stack, rows: Rows, launch: Callable[..., Replica], eventually: Eventually, tmp_path: Path
) -> None:
    launch(LEASE_SECONDS="2", PROCESSOR_PROCESSES="1")
    [frozen] = send(stack, "hostile.frozen", marker=str(tmp_path / "frozen"))
    eventually(lambda: (tmp_path / "frozen").exists())

    later = send(stack, "hostile.plain", 20)

    eventually(lambda: rows.count("processed", later) == 20, timeout_seconds=100, message="later ones are processed")
    eventually(lambda: rows.state(frozen) == "processed")


@pytest.mark.soak
def test_liveness_tells_of_another_process_that_is_gone_for_too_long(
    processor: Replica, eventually: Eventually
) -> None:
    suspects = min(children_by_parent()[processor.process.pid])
    assert status_of(processor, "/livez") == 200

    processor.process.send(signal.SIGSTOP, pid=suspects)

    eventually(lambda: status_of(processor, "/livez") == 503, timeout_seconds=50)
    processor.process.send(signal.SIGCONT, pid=suspects)
    eventually(lambda: status_of(processor, "/livez") == 200)


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        ("hostile.thread", {}), ("hostile.subprocess", {}),
        pytest.param(
            "hostile.subprocess", {"is_detached": True},
            marks=pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of what has left the group"),
        ),
    ],
)  # fmt: skip
def test_what_a_handler_leaves_behind_ends_with_its_worker(
    stack: Stack, rows: Rows, processor: Replica, eventually: Eventually, type_: str, data: dict[str, Any]
) -> None:
    [event_id] = send(stack, type_, **data)
    eventually(lambda: rows.state(event_id) == "processed")
    result = result_of(rows, event_id) or {}
    left = [worker_of(processor), *result.values()]
    assert all(map(is_alive, left))

    processor.process.send(signal.SIGTERM, pid=left[0])

    eventually(partial(are_gone, left), timeout_seconds=GONE_SECONDS, message="all are gone")
    assert_works(stack, rows, eventually)


def result_of(rows: Rows, event_id: str) -> Any:
    [(result,)] = rows.query("SELECT result FROM processed_event_log WHERE event_id = %s", event_id)
    return result


@pytest.mark.parametrize(
    ("type_", "status", "effects"), [("hostile.fork", 70, 1), ("hostile.fork-exit", 7, 1), ("hostile.fork-sql", 70, 2)]
)
def test_a_process_that_a_handler_forked_neither_settles_nor_uses_the_workers_connections(
    stack: Stack, rows: Rows, processor: Replica, eventually: Eventually, type_: str, status: int, effects: int
) -> None:
    worker = worker_of(processor)

    event_ids = send(stack, type_, 5)

    eventually(lambda: rows.count("processed", event_ids) == len(event_ids))
    assert {rows.standing(each) for each in event_ids} == {("processed", 1, 0)}
    assert [result_of(rows, each) for each in event_ids] == [{"status": status}] * len(event_ids)
    assert rows.effects(event_ids) == effects * len(event_ids)
    assert children_by_parent().get(worker, []) == []
    assert_works(stack, rows, eventually)


@pytest.mark.parametrize("what", sorted(SPOILERS))
def test_a_handler_that_spoils_its_process_does_not_stop_other_events(
    stack: Stack, rows: Rows, launch: Callable[..., Replica], eventually: Eventually, what: str
) -> None:
    processor = launch(LEASE_SECONDS="2", SHUTDOWN_SECONDS="1", PROCESSOR_THREADS="2")

    [spoiler] = send(stack, "hostile.spoiler", what=what)

    # One that takes its process along does so three times, once a lease, before it is dead.
    eventually(lambda: rows.state(spoiler) in FINAL, timeout_seconds=90, message="the spoiler's own fate is known")
    later = send(stack, "hostile.plain", 10)
    eventually(lambda: rows.count("processed", later) == 10, timeout_seconds=60, message="others are processed")
    assert rows.effects(later) == 10
    began = time.monotonic()
    stop(processor)
    assert time.monotonic() - began < 1 + MARGIN_SECONDS
