"""Handlers without a transaction: their lease is kept while they run, and they are told when it is not. Timeouts."""

import contextlib
import io
import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import text

from holdfast.domain.event import Lease
from holdfast.local.fixtures import Eventually
from holdfast.processor import Context, Handlers
from holdfast.processor.attempt.execute import Executor
from holdfast.processor.attempt.heartbeat import Heartbeat
from holdfast.processor.attempt.interruption import Interruptions, TimedOut
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Metrics
from holdfast.storage import claims, leases

MakeExecutor = Callable[..., Any]


class Outside:
    """The other side of a handler's calls. A call can be held up; what arrives is kept."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.saw_cancelled = threading.Event()

    def handler(self) -> Callable[..., str]:
        """A handler that calls it."""

        def call(data: Any, ctx: Context) -> str:  # noqa: ARG001
            return self.call(ctx)

        return call

    def call(self, ctx: Context) -> str:
        self.keys.append(ctx.idempotency_key)
        self.begun.set()
        while not self.may_end.wait(0.01):
            if ctx.cancelled:
                self.saw_cancelled.set()
                raise ConnectionAbortedError("told to stop")
        return "done"


class Unread(io.StringIO):
    """A log whose reader has stopped: what is written waits."""

    def __init__(self) -> None:
        super().__init__()
        self.is_waiting = threading.Event()
        self.is_read = threading.Event()

    def write(self, text: str) -> int:
        self.is_waiting.set()
        self.is_read.wait()
        return super().write(text)


def handling(function: Callable[..., Any], **options: Any) -> Handlers:
    handlers = Handlers()
    handlers.on("test.done", name="handler", **options)(function)
    return handlers


def endless(data: Any, ctx: Context) -> None:  # noqa: ARG001
    while True:
        pass


def give_away(stored: Any, *, is_expired: bool = True) -> int:
    """Recover, in one transaction, so that no heartbeat comes in between; returns how many were."""
    with stored.database.transaction() as session:
        if is_expired:
            session.execute(
                text("UPDATE processing_state SET lease_expires_at = now() - interval '1 s' WHERE state = 'processing'")
            )
        return len(leases.recover_expired(session, limit=10))


@pytest.fixture
def lease(stored: Any) -> Lease:
    """An event that is claimed."""
    with stored.database.transaction() as session:
        [(made, _)] = claims.claim_events(
            session, [(stored.record("test.done"), 1)], owner="test", lease_seconds=60
        )  # fmt: skip
    return made


@pytest.fixture
def outside() -> Outside:
    return Outside()


@pytest.fixture
def serve(executor: MakeExecutor) -> Any:
    """An executor for one handler, watching, as a process does."""
    made: list[Executor] = []

    def serve_one(function: Callable[..., Any], *, lease_seconds: float = 1, **options: Any) -> Any:
        one = executor(handling(function, **options), lease_seconds=lease_seconds)
        one.start()
        made.append(one)
        return one

    yield serve_one
    for each in made:
        each.stop()


def test_a_lease_is_kept_while_a_handler_without_transaction_runs(
    stored: Any, serve: Any, outside: Outside, eventually: Eventually
) -> None:
    event_id = stored.record("test.done")
    one = serve(outside.handler(), transactional=False)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(one.execute, event_id, 1)
        assert outside.begun.wait(30)
        first = stored.row(event_id).lease_expires_at
        eventually(
            lambda: (stored.row(event_id).lease_expires_at - first).total_seconds() > 2,
            message="three leases have passed",
        )
        assert give_away(stored, is_expired=False) == 0
        outside.may_end.set()
        running.result(30)

    assert stored.state(event_id) == "processed"
    assert stored.log(event_id)[0].result == "done"
    assert outside.keys == [f"{event_id}:handler"]


def test_no_transaction_is_open_meanwhile(stored: Any, serve: Any, outside: Outside) -> None:
    event_id = stored.record("test.done")
    one = serve(outside.handler(), transactional=False, lease_seconds=60)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(one.execute, event_id, 1)
        assert outside.begun.wait(30)
        idle = stored.scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'executor'"
            " AND state LIKE 'idle in transaction%' AND datname = current_database()"
        )
        outside.may_end.set()
        running.result(30)

    assert idle == 0


def test_a_handler_whose_event_was_given_away_is_told_and_settles_nothing(
    stored: Any, serve: Any, outside: Outside
) -> None:
    event_id = stored.record("test.done")
    one = serve(outside.handler(), transactional=False)
    lost = Metrics.lost_leases._value.get()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(one.execute, event_id, 1)
        assert outside.begun.wait(30)
        assert give_away(stored) == 1
        assert outside.saw_cancelled.wait(30)
        running.result(30)

    assert stored.state(event_id) == "queued"
    assert Metrics.lost_leases._value.get() == lost + 1


def test_a_handler_that_returns_after_its_event_was_given_away_settles_nothing(
    stored: Any, serve: Any, outside: Outside
) -> None:
    event_id = stored.record("test.done")

    def does_not_look(data: Any, ctx: Context) -> None:  # noqa: ARG001
        outside.begun.set()
        outside.may_end.wait(30)

    one = serve(does_not_look, transactional=False)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(one.execute, event_id, 1)
        assert outside.begun.wait(30)
        assert give_away(stored) == 1
        outside.may_end.set()
        running.result(30)

    assert stored.state(event_id) == "queued"
    assert stored.log(event_id) == []


def test_the_first_heartbeat_that_finds_the_lease_lost_tells(lease: Lease) -> None:
    [handler] = handling(endless, transactional=False)
    heartbeat = Heartbeat(lambda _: {}, Interruptions(), lease_seconds=3600)

    with heartbeat.watched(lease, handler) as running:
        heartbeat.beat()
        assert running.cancelled.is_set()


def test_blocked_heartbeats_tell_the_handler_to_stop(stored: Any, serve: Any, outside: Outside) -> None:
    event_id = stored.record("test.done")
    one = serve(outside.handler(), transactional=False)

    with ThreadPoolExecutor(1) as pool, stored.database.transaction() as session:
        running = pool.submit(one.execute, event_id, 1)
        assert outside.begun.wait(30)
        # Whoever holds the row's lock keeps the heartbeat's statement waiting.
        session.execute(text("SELECT FROM processing_state FOR UPDATE"))
        assert outside.saw_cancelled.wait(30)
        session.rollback()
        running.result(30)


def test_without_a_transaction_there_is_no_session(stored: Any, serve: Any) -> None:
    event_id = stored.record("test.done")

    serve(lambda _, ctx: ctx.session.connection(), transactional=False).execute(event_id, 1)

    error = stored.error(event_id)
    assert error.error_type == "RuntimeError"
    assert "transactional=False" in error.message


def test_a_handler_that_computes_for_too_long_has_failed(stored: Any, serve: Any) -> None:
    event_id = stored.record("test.done")

    serve(endless, timeout=0.3).execute(event_id, 1)

    assert stored.state(event_id) == "failed"
    error = stored.error(event_id)
    assert (error.error_type, error.message) == ("timeout", "the handler took longer than its timeout of 0.3 s")
    assert stored.effects(event_id) == 0


def test_a_statement_that_takes_too_long_has_failed(stored: Any, serve: Any) -> None:
    event_id = stored.record("test.done")

    serve(lambda _, ctx: ctx.session.execute(text("SELECT pg_sleep(60)")), timeout=0.3).execute(event_id, 1)

    assert stored.error(event_id).error_type == "timeout"


def test_a_handler_without_transaction_is_asked_before_it_is_interrupted(
    stored: Any, serve: Any, outside: Outside
) -> None:
    event_id = stored.record("test.done")

    serve(outside.handler(), transactional=False, timeout=0.3, lease_seconds=60).execute(event_id, 1)

    assert outside.saw_cancelled.is_set()
    assert stored.error(event_id).error_type == "timeout"
    assert "told to stop" in stored.error(event_id).traceback


def test_one_that_does_not_listen_is_interrupted(lease: Lease) -> None:
    [handler] = handling(endless, transactional=False, timeout=0.2)
    interruptions = Interruptions()
    heartbeat = Heartbeat(lambda _: {lease.event.id: True}, interruptions, lease_seconds=60, insist_seconds=0.3)
    heartbeat.start()

    def ignore_it() -> None:
        with heartbeat.watched(lease, handler) as running, interruptions.allowed():
            while True:
                is_told.append(running.cancelled.is_set())

    is_told: deque[bool] = deque(maxlen=1)
    with pytest.raises(TimedOut):
        ignore_it()

    assert is_told[-1]
    heartbeat.stop()


@pytest.mark.usefixtures("log_text")  # which sends the log elsewhere again
def test_a_log_that_nobody_reads_keeps_no_handler(lease: Lease) -> None:
    unread = Unread()
    with contextlib.redirect_stdout(unread):
        logging.configure(service="test", version="0", log_format="json")
    [handler] = handling(endless, timeout=0.2, transactional=False)
    interruptions = Interruptions()
    heartbeat = Heartbeat(lambda _: {lease.event.id: True}, interruptions, lease_seconds=60, insist_seconds=0.3)
    heartbeat.start()

    with pytest.raises(TimedOut), heartbeat.watched(lease, handler), interruptions.allowed():
        endless(None, cast("Context", None))

    assert unread.is_waiting.wait(30), "it is told of when there is time for it"
    unread.is_read.set()
    heartbeat.stop()
    assert "its time was up" in unread.getvalue()


def test_the_thread_of_a_handler_that_timed_out_goes_on_working(stored: Any, serve: Any) -> None:
    slow, quick = stored.record("test.done", data=True), stored.record("test.done", data=False)
    one = serve(lambda data, ctx: endless(data, ctx) if data else None, timeout=0.3)

    for event_id in (slow, quick):
        one.execute(event_id, 1)

    assert stored.state(slow) == "failed"
    assert stored.state(quick) == "processed"


def test_a_handler_that_nothing_ends_is_reported_once(lease: Lease) -> None:
    [handler] = handling(endless, timeout=0.2)
    stuck: queue.Queue[str] = queue.Queue()
    heartbeat = Heartbeat(
        lambda _: {lease.event.id: True}, Interruptions(), lease_seconds=60, stuck_seconds=0.3,
        on_stuck=lambda: stuck.put("stuck"),
    )  # fmt: skip
    heartbeat.start()

    with heartbeat.watched(lease, handler):  # not within a block that may be interrupted: no exception reaches it
        stuck.get(timeout=30)
        for _ in range(3):
            heartbeat.check()
    heartbeat.stop()

    assert stuck.empty()


def test_a_subjects_events_run_in_order_and_the_next_is_called(stored: Any, executor: MakeExecutor) -> None:
    called: list[UUID] = []

    def done(data: Any, ctx: Context) -> None:
        pass

    one = executor(handling(done, ordering="subject"), wake=lambda doorbell: called.append(doorbell.event_id))
    first, second, third = (stored.record("test.done", subject="s") for _ in range(3))

    for event_id in (third, second, first, second):
        one.execute(event_id, 1)

    assert [stored.state(each) for each in (first, second, third)] == ["processed", "processed", "queued"]
    assert called == [first, first, second, third], "who comes too early calls the one that is next"
