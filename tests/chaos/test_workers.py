"""Workers that are on their own, that have a wrong clock, that end in order, and that lose their master."""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from uuid import UUID

import pytest
from tests.chaos.load import Load, send
from tests.chaos.producers import Producers
from tests.chaos.stacks import LEASE_SECONDS, Rows, fill, held_lock
from tests.chaos.standing import history, settle, standing
from tests.chaos.unguarded import Unguarded, is_alive, unguarded

from holdfast.local.fixtures import Eventually
from holdfast.local.stack import Stack
from holdfast.storage.claims import claim_events
from holdfast.storage.database import Database

pytestmark = pytest.mark.xdist_group("chaos-workers")

HERE = Path(__file__).parent

LOCKS = {"r18": 18, "r20": 20}

SKEW_SECONDS = 600


def test_r18_processing_and_crash_recovery_go_on_without_scheduler_and_maintenance(
    stack: Stack, rows: Rows, producers: Producers, assert_invariant: Callable[[], None], eventually: Eventually
) -> None:
    stack.hold("scheduler")
    stack.hold("maintenance")
    try:
        rung = [*send(producers, "chaos.plain", 20), *send(producers, "chaos.flaky", 5)]
        unrung = fill(stack.database_url, 5, "chaos.plain", grace_seconds=5)
        with held_lock(stack, LOCKS["r18"]):
            [killed] = send(producers, "chaos.blocked", lock=LOCKS["r18"])
            eventually(lambda: rows.waiting(LOCKS["r18"]) == 1, message="the handler is at work")
            [leased] = standing(rows, [killed])
            os.kill(leased.worker, signal.SIGKILL)

        settled = settle(rows, [*rung, *unrung, killed], eventually)
    finally:
        stack.resume("maintenance")
        stack.resume("scheduler")

    assert {row.state for row in settled} == {"processed"}
    assert [(row.attempt, row.crashes) for row in settled if row.event_id == killed] == [(2, 1)]
    assert_invariant()


@pytest.mark.usefixtures("no_processor")
def test_r19_workers_with_clocks_ten_minutes_wrong_do_nothing_early_and_nothing_twice(
    stack: Stack, rows: Rows, producers: Producers, assert_invariant: Callable[[], None], eventually: Eventually
) -> None:
    lost = send(producers, "chaos.plain", 10)
    with ExitStack() as running:
        workers = [running.enter_context(with_clock(stack, ahead)) for ahead in (SKEW_SECONDS, -SKEW_SECONDS)]
        leave(stack, lost)
        for worker in workers:
            eventually(worker.is_ready, timeout_seconds=60, message="the worker is ready")
        flaky = send(producers, "chaos.flaky", 10)
        working: list[str] = []
        eventually(lambda: are_both_at_work(rows, producers, working), message="both workers take part")
        settled = settle(rows, [*lost, *flaky, *working], eventually)
        assert [worker.stop() for worker in workers] == [0, 0]

    assert {row.state for row in settled} == {"processed"}
    for expected, event_ids in (((2, 1), lost), ((2, 0), flaky), ((1, 0), working)):
        assert {(row.attempt, row.crashes) for row in settled if row.event_id in event_ids} == {expected}
    for event_id in lost:
        _, claimed, recovered, *_ = history(rows, event_id)
        assert recovered.at - claimed.at >= LEASE_SECONDS
    for event_id in flaky:
        _, _, failed, again, _ = history(rows, event_id)
        assert again.at - failed.at >= failed.detail["retry_in_seconds"] - 0.001
    assert_invariant()


def with_clock(stack: Stack, ahead_seconds: int) -> AbstractContextManager[Unguarded]:
    """A processor of one thread, whose clock is wrong."""
    path = os.pathsep.join((str(HERE / "skewed"), str(HERE)))
    ahead = str(ahead_seconds)
    return unguarded(stack, PYTHONPATH=path, CLOCK_AHEAD_SECONDS=ahead, HOLDFAST_PROCESSOR_THREADS="1")


def leave(stack: Stack, event_ids: list[str]) -> None:
    """Claim events as a worker that is gone; the leases run."""
    database = Database(stack.database_url, application_name="test", pool_size=1)
    try:
        with database.transaction() as session:
            claimed = claim_events(
                session, [(UUID(each), 1) for each in event_ids], owner="lost", lease_seconds=LEASE_SECONDS
            )
    finally:
        database.close()
    assert len(claimed) == len(event_ids)


def are_both_at_work(rows: Rows, producers: Producers, working: list[str]) -> bool:
    """Whether events were processed under each of the wrong clocks; each look adds some to them."""
    working += send(producers, "chaos.working", 2, seconds=0.05)
    seen = set()
    for row in standing(rows, working):
        if row.processed_at is not None:
            seen |= {round((row.result[clock] - row.processed_at) / SKEW_SECONDS) for clock in ("time", "now")}
    assert seen <= {1, -1}
    return len(seen) == 2


def test_r20_sigterm_under_load_lets_handlers_finish_and_counts_no_crash(
    stack: Stack, rows: Rows, producers: Producers, assert_invariant: Callable[[], None], eventually: Eventually
) -> None:
    processor = stack.services["processor"]
    stopping = threading.Thread(target=stack.hold, args=["processor"])
    try:
        with Load(stack.ingest_url, stack.api_key, producers, "chaos.working", seconds=0.05) as load:
            with held_lock(stack, LOCKS["r20"]):
                at_work = send(producers, "chaos.blocked", 4, lock=LOCKS["r20"])
                eventually(lambda: rows.waiting(LOCKS["r20"]) == 4, message="four handlers are at work")
                leases = {row.lease_token for row in standing(rows, at_work)}
                before = processor.log.stat().st_size
                stopping.start()
                eventually(lambda: '"stopping"' in processor.log.read_text()[before:], message="it has heard SIGTERM")
                accepted = len(load.accepted)
                eventually(
                    lambda: len(load.accepted) > accepted + 50, message="time passes, in which they are waited for"
                )
            stopping.join()
        status = processor.status
    finally:
        stack.resume("processor")

    assert status == 0, "its guard would have killed it two seconds after the grace"
    settled = settle(rows, [*at_work, *load.accepted], eventually)
    assert {row.settled_by for row in settled if row.event_id in at_work} == leases, "they finished what they had begun"
    assert {(row.state, row.attempt, row.crashes) for row in settled} == {("processed", 1, 0)}
    assert_invariant()


@pytest.mark.usefixtures("no_processor")
def test_r21_workers_whose_master_was_killed_stop_by_themselves(
    stack: Stack, rows: Rows, producers: Producers, assert_invariant: Callable[[], None], eventually: Eventually
) -> None:
    with unguarded(stack) as processor:
        eventually(processor.is_ready, timeout_seconds=60, message="the processor is ready")
        orphans = processor.workers()
        with Load(stack.ingest_url, stack.api_key, producers, "chaos.working", seconds=0.05) as load:
            eventually(lambda: len(load.accepted) > 20, message="there is load")

            processor.master.kill()

            assert orphans
            eventually(lambda: not any(map(is_alive, orphans)), timeout_seconds=20, message="the orphans have stopped")

    stack.resume("processor")
    assert {row.state for row in settle(rows, load.accepted, eventually)} == {"processed"}
    assert_invariant()
