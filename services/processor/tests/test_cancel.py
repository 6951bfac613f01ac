"""Events that an operator cancels while they run: ended within a second, with nothing of their effects left."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from holdfast.domain.event import Lease
from holdfast.domain.state import State
from holdfast.domain.transitions import AttemptError, Completion, bury, fail, release, replay, settle
from holdfast.local.fixtures import Eventually
from holdfast.processor import Context, Handlers
from holdfast.processor.attempt.cancelling import GRACE_SECONDS, UNREACHABLE_SECONDS
from holdfast.processor.attempt.execute import Executor
from holdfast.processor.handlers.bulk import BatchContext
from holdfast.storage import cancels, claims, lifecycle, operate, replay_batches, replays
from holdfast.storage.audit import Actor
from holdfast.storage.filters import EventFilter
from holdfast.storage.operate import Outcome

MakeExecutor = Callable[..., Any]
Start = Callable[..., Any]

ANN = Actor("acme", "key-1", "ann")

SECOND = 1.0

MARGIN_SECONDS = 1.5
"""For a machine that has other things to do."""


def cancel(stored: Any, event_id: UUID, key: str | None = None) -> operate.Acted:
    """What ``POST /v1/events/{id}/cancel`` does."""
    with stored.database.transaction() as session:
        acted = operate.cancel_event(session, ANN, event_id, idempotency_key=key or uuid4().hex)
    assert acted is not None
    return acted


def carry_out(stored: Any) -> list[UUID]:
    """What maintenance does about requests."""
    with stored.database.transaction() as session:
        return [update.event_id for update in cancels.carry_out(session, limit=10)]


def requests(stored: Any) -> int:
    return int(stored.scalar("SELECT count(*) FROM cancel_request"))


def seconds_to_end(stored: Any, event_id: UUID) -> float:
    """Between the request and the move, by PostgreSQL's clock."""
    [row] = stored.rows(
        "SELECT CAST(extract(epoch FROM max(u.at) - max(a.at)) AS float8) AS seconds FROM event_update u, audit_log a"
        " WHERE u.event_id = :id AND u.state = 'discarded' AND a.event_id = u.event_id AND a.action = 'cancel'",
        event_id,
    )
    return float(row.seconds)


def is_discarded(stored: Any, event_id: UUID) -> bool:
    return bool(stored.state(event_id) == "discarded")


def sleeping_statements(stored: Any) -> int:
    return int(
        stored.scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'"
            " AND query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()"
        )
    )


@pytest.fixture
def run_beside(executor: MakeExecutor) -> Iterator[Callable[..., Executor]]:
    """Run a group of leases, each in a thread of this process that watches as a worker does."""
    made: list[Executor] = []
    threads: list[threading.Thread] = []

    def run(stored: Any, *event_ids: UUID, handlers: Handlers) -> Executor:
        one = executor(handlers)
        one.start()
        made.append(one)
        with stored.database.transaction() as session:
            claimed = claims.claim_events(
                session, [(each, stored.row(each).version) for each in event_ids], owner="test", lease_seconds=60
            )
        leases_: list[Lease] = sorted((lease for lease, _ in claimed), key=lambda lease: lease.event.id)
        threads.append(threading.Thread(target=one.run_together, args=[leases_]))
        threads[-1].start()
        return cast("Executor", one)

    yield run
    for thread in threads:
        thread.join(30)
    for one in made:
        one.stop()
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize(
    ("type_", "seconds"),
    [
        ("test.python", SECOND), ("test.sql", SECOND), ("test.socket", SECOND + UNREACHABLE_SECONDS),
        ("test.outside", SECOND), ("test.outside.deaf", SECOND + GRACE_SECONDS),
        ("test.outside.socket", SECOND + GRACE_SECONDS + UNREACHABLE_SECONDS),
    ],
)  # fmt: skip
def test_a_running_event_is_ended_in_time_and_leaves_nothing(
    start: Start, stored: Any, live: Any, eventually: Eventually, type_: str, seconds: float
) -> None:
    start(HANDLERS="cancel_handlers:handlers")
    event_id = stored.record(type_)
    live.ring((event_id, 1))
    eventually(lambda: stored.state(event_id) == "processing")

    acted = cancel(stored, event_id)

    eventually(lambda: is_discarded(stored, event_id), timeout_seconds=20, message="it is discarded")
    row = stored.row(event_id)
    assert (acted.outcome, acted.state) == (Outcome.REQUESTED, "processing")
    assert seconds_to_end(stored, event_id) < seconds + MARGIN_SECONDS
    assert (row.version, row.attempt, stored.effects(event_id), stored.log(event_id)) == (3, 1, 0, [])
    assert (stored.error(event_id).error_type, "ann cancelled" in stored.error(event_id).message) == ("cancelled", True)
    assert eventually(lambda: sleeping_statements(stored) == 0)
    eventually(lambda: live.told(event_id)[-1:] == [("discarded", 3, 0)])
    assert "ann" not in str(live.published(event_id)), "clients are not told who it was"


def begin_discard(stored: Any, **filter_: Any) -> UUID:
    """What ``POST /v1/discards`` does; the set's id."""
    with stored.database.transaction() as session:
        begun = replays.start_replay(
            session, ANN, EventFilter(state=State.PROCESSING, **filter_), rate_per_s=replays.MAX_RATE_PER_S,
            idempotency_key=uuid4().hex, action=replays.Action.DISCARD,
        )  # fmt: skip
    assert isinstance(begun, replays.Replay), begun
    return begun.id


def work_off(stored: Any, discard_id: UUID) -> tuple[int, int]:
    """What maintenance does about a set: how many are to be cancelled, and how many had moved on."""
    stored.run("UPDATE replay_job SET next_at = now() - interval '1 min'")
    with stored.database.transaction() as session:
        batch = replay_batches.replay_batch(session, discard_id, limit=100, burst_seconds=2, grace_seconds=5)
    return batch.asked, batch.skipped


def test_twenty_running_events_are_ended_together_and_others_go_on(
    start: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    start(HANDLERS="cancel_handlers:handlers", PROCESSOR_THREADS="22")
    running = [stored.record(type_) for type_ in ("test.python", "test.outside") for _ in range(10)]
    other = stored.record("test.turn", "endless", audience="u")
    live.ring(*((each, 1) for each in [*running, other]))
    eventually(lambda: {stored.state(each) for each in [*running, other]} == {"processing"}, timeout_seconds=30)

    begun = [begin_discard(stored, type=each) for each in ("test.python", "test.outside")]
    assert [work_off(stored, each) for each in begun] == [(10, 0)] * 2
    asked_at = stored.scalar("SELECT max(requested_at) FROM cancel_request")

    eventually(lambda: all(is_discarded(stored, each) for each in running), timeout_seconds=30)
    ended_at = stored.scalar("SELECT max(at) FROM event_update WHERE state = 'discarded'")
    assert (ended_at - asked_at).total_seconds() < 5
    assert {(stored.row(each).version, stored.effects(each), len(stored.log(each))) for each in running} == {(3, 0, 0)}
    assert all("ann cancelled" in stored.error(each).message for each in running)
    assert eventually(lambda: [live.told(each)[-1] for each in running] == [("discarded", 3, 0)] * 20)
    assert stored.state(other) == "processing"
    cancel(stored, other)
    eventually(lambda: is_discarded(stored, other))


def test_one_that_is_done_before_its_turn_stays_processed(
    start: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    start(HANDLERS="cancel_handlers:handlers", PROCESSOR_THREADS="2")
    runs, done = stored.record("test.python"), stored.record("test.released")
    live.ring((runs, 1), (done, 1))
    eventually(lambda: {stored.state(each) for each in (runs, done)} == {"processing"})
    discard_id = begin_discard(stored)
    stored.run("INSERT INTO effect VALUES (NULL, 'released')")
    eventually(lambda: stored.state(done) == "processed")

    assert work_off(stored, discard_id) == (1, 1)

    eventually(lambda: is_discarded(stored, runs))
    assert (stored.state(done), stored.effects(done)) == ("processed", 1)
    assert stored.rows("SELECT FROM cancel_request WHERE event_id = :id", done) == []


def test_a_worker_goes_on_after_a_cancelled_event(start: Start, stored: Any, live: Any, eventually: Eventually) -> None:
    start(HANDLERS="cancel_handlers:handlers", PROCESSOR_THREADS="1")
    cancelled, after = stored.record("test.sql"), stored.record("test.turn")
    live.ring((cancelled, 1), (after, 1))
    eventually(lambda: stored.state(cancelled) == "processing")

    cancel(stored, cancelled)

    eventually(lambda: stored.state(after) == "processed", timeout_seconds=20)
    assert (stored.state(cancelled), stored.effects(after)) == ("discarded", 1)


def test_a_request_survives_the_death_of_the_worker(
    start: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    worker = start(HANDLERS="cancel_handlers:handlers", LEASE_SECONDS="5")
    event_id = stored.record("test.outside.deaf")
    live.ring((event_id, 1))
    eventually(lambda: stored.state(event_id) == "processing")
    os.killpg(worker.pid_of_worker(), signal.SIGSTOP)
    cancel(stored, event_id)
    worker.kill()

    assert stored.state(event_id) == "processing"
    recovered = stored.recover()

    assert [(update.event_id, update.state) for update in recovered] == [(event_id, "discarded")]
    assert (stored.row(event_id).crashes, stored.error(event_id).error_type) == (1, "cancelled")


def test_processors_carry_requests_out_while_maintenance_is_away(
    start: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    event_id = stored.record("test.outside")
    with stored.database.transaction() as session:
        [(lease, _)] = claims.claim_events(session, [(event_id, 1)], owner="lost", lease_seconds=60)
    cancel(stored, event_id)
    with stored.database.transaction() as session:
        lifecycle.apply(session, [replace(release(lease.event.id, lease.token), delay_seconds=3600.0)])
    assert stored.state(event_id) == "queued"

    start(HANDLERS="cancel_handlers:handlers")

    eventually(lambda: is_discarded(stored, event_id), timeout_seconds=20)
    assert stored.row(event_id).version == 5, "a discard skips a version"
    eventually(lambda: requests(stored) == 0)
    eventually(lambda: live.told(event_id)[-1:] == [("discarded", 5, 0)])


def claimed(stored: Any, event_id: UUID, *, lease_seconds: float = 60) -> Lease:
    version = stored.row(event_id).version
    with stored.database.transaction() as session:
        [(lease, _)] = claims.claim_events(session, [(event_id, version)], owner="test", lease_seconds=lease_seconds)
    return lease


def move(stored: Any, *transitions: Any) -> list[str]:
    with stored.database.transaction() as session:
        return [str(update.state) for update in lifecycle.apply(session, transitions)]


ERROR = AttemptError("ValueError", "no", handler="h")


def test_who_settles_first_wins_and_the_request_is_forgotten(stored: Any) -> None:
    event_id = stored.record("test.done")
    lease = claimed(stored, event_id)
    cancel(stored, event_id)

    assert move(stored, settle(event_id, lease.token, Completion("h", None, 1))) == ["processed"]

    assert cancels.requested(stored.database, [event_id]) == {}
    assert (carry_out(stored), requests(stored), stored.state(event_id)) == ([], 0, "processed")


@pytest.mark.parametrize("is_late", [False, True])
def test_a_request_never_meets_a_replay_of_its_event(stored: Any, is_late: bool) -> None:
    """Nothing is deleted between the end of the event and its next run."""
    event_id = stored.record("test.done")
    lease = claimed(stored, event_id)
    cancel(stored, event_id)
    move(stored, bury(event_id, lease.token, ERROR))

    move(stored, replay(event_id))
    again = claimed(stored, event_id) if is_late else None

    assert cancels.requested(stored.database, [event_id]) == {}
    assert (carry_out(stored), requests(stored)) == ([], 0)
    if again is not None:
        assert [update.state for update in stored.recover()] == ["queued"]
    assert stored.state(event_id) == "queued"


def test_a_replayed_event_can_be_cancelled_again_beside_a_void_request(stored: Any) -> None:
    event_id = stored.record("test.done")
    lease = claimed(stored, event_id)
    cancel(stored, event_id)
    move(stored, bury(event_id, lease.token, ERROR), replay(event_id))
    move(stored, replay(event_id))
    claimed(stored, event_id)

    acted = cancel(stored, event_id)

    assert acted.outcome is Outcome.REQUESTED
    assert cancels.requested(stored.database, [event_id]) == {event_id: "ann"}
    assert [update.state for update in stored.recover()] == ["discarded"]


def test_an_event_that_fails_at_that_moment_is_not_tried_again(stored: Any) -> None:
    event_id = stored.record("test.done")
    lease = claimed(stored, event_id)
    cancel(stored, event_id)
    move(stored, fail(event_id, lease.token, ERROR, delay_seconds=0))

    assert carry_out(stored) == [event_id]

    assert (stored.state(event_id), stored.row(event_id).version, requests(stored)) == ("discarded", 5, 0)


def test_a_request_for_an_event_that_is_claimed_again_waits_for_its_worker(stored: Any) -> None:
    event_id = stored.record("test.done")
    lease = claimed(stored, event_id)
    cancel(stored, event_id)
    move(stored, fail(event_id, lease.token, ERROR, delay_seconds=0))
    claimed(stored, event_id)

    assert (carry_out(stored), requests(stored), stored.state(event_id)) == ([], 1, "processing")
    assert cancels.requested(stored.database, [event_id]) == {event_id: "ann"}


def test_what_waits_is_discarded_at_once_and_what_has_ended_is_not(stored: Any) -> None:
    waiting, dead = stored.record("test.done"), stored.record("test.done")
    move(stored, bury(dead, claimed(stored, dead).token, ERROR))

    outcomes = [cancel(stored, each).outcome for each in (waiting, dead)]

    assert outcomes == [Outcome.MOVED, Outcome.NOT_ALLOWED]
    assert (stored.state(waiting), stored.state(dead), requests(stored)) == ("discarded", "dead", 0)


def test_a_second_request_changes_nothing_and_is_audited_once(stored: Any) -> None:
    event_id = stored.record("test.done")
    claimed(stored, event_id)

    outcomes = [cancel(stored, event_id, key).outcome for key in ("a", "a", "b")]

    assert outcomes == [Outcome.REQUESTED, Outcome.REPEATED, Outcome.REPEATED]
    assert stored.scalar("SELECT count(*) FROM audit_log WHERE action = 'cancel'") == 1


def test_what_a_handler_does_after_it_was_told_does_not_count(
    stored: Any, run_beside: Callable[..., Executor], eventually: Eventually
) -> None:
    """It catches what ends it, undoes its transaction and returns a result."""
    handlers = Handlers()

    @handlers.on("test.stubborn", name="stubborn")
    def stubborn(data: Any, ctx: Context) -> str:  # noqa: ARG001
        ctx.emit("test.child", None)
        ctx.session.execute(text("INSERT INTO effect VALUES (:id, '')"), {"id": ctx.event.id})
        try:
            with ctx.session.begin_nested():
                ctx.session.execute(text("SELECT pg_sleep(60)"))
        except BaseException:  # noqa: BLE001, S110
            pass
        return "done all the same"

    event_id = stored.record("test.stubborn")
    run_beside(stored, event_id, handlers=handlers)
    eventually(lambda: sleeping_statements(stored) == 1)

    cancel(stored, event_id)

    eventually(lambda: is_discarded(stored, event_id), timeout_seconds=20)
    assert (stored.effects(event_id), stored.log(event_id), stored.count("queued", "test.child")) == (0, [], 0)


@pytest.mark.parametrize("is_listed", [False, True])
def test_the_others_of_a_batch_go_on(
    stored: Any, run_beside: Callable[..., Executor], eventually: Eventually, is_listed: bool
) -> None:
    handlers, called = Handlers(), list[UUID]()

    def write(ctx: Context, data: Any) -> None:
        called.append(ctx.event.id)
        ctx.session.execute(text("INSERT INTO effect VALUES (:id, '')"), {"id": ctx.event.id})
        if data == "slow":
            ctx.session.execute(text("SELECT pg_sleep(60)"))

    def batched(data: Any, ctx: Context) -> None:
        write(ctx, data)

    def listed(payloads: list[Any], ctx: BatchContext) -> None:
        for data, item in zip(payloads, ctx.items, strict=True):
            write(item, data)

    handlers.on("test.batched", name="batched", batch=10)(listed if is_listed else batched)
    before, slow, after = (stored.record("test.batched", data) for data in ("quick", "slow", "quick"))
    run_beside(stored, before, slow, after, handlers=handlers)
    eventually(lambda: sleeping_statements(stored) == 1)

    cancel(stored, slow)

    done = ["processed", "discarded", "processed"]
    eventually(lambda: [stored.state(each) for each in (before, slow, after)] == done, timeout_seconds=20)
    assert [stored.effects(each) for each in (before, slow, after)] == [1, 0, 1]
    assert stored.errors(before) == stored.errors(after) == []
    assert called.count(before) == (2 if is_listed else 1), (
        "one transaction does for the others, unless one call does all"
    )


def test_the_next_of_a_lane_is_called(start: Start, stored: Any, live: Any, eventually: Eventually) -> None:
    start(HANDLERS="cancel_handlers:handlers")
    first = stored.record("test.turn", "endless", subject="s")
    live.ring((first, 1))
    eventually(lambda: stored.state(first) == "processing")
    second = stored.record("test.turn", subject="s")
    live.ring((second, 1))
    eventually(lambda: stored.row(second).waiting_since is not None)

    cancel(stored, first)

    eventually(lambda: stored.state(second) == "processed", timeout_seconds=20)
    assert (stored.state(first), stored.effects(first)) == ("discarded", 0)


def test_a_cancelled_member_of_a_group_counts_as_discarded(
    stored: Any, run_beside: Callable[..., Executor], eventually: Eventually
) -> None:
    handlers = Handlers()

    @handlers.on("test.whole", name="whole")
    def whole(data: Any, ctx: Context) -> None:  # noqa: ARG001
        members = [{"type": "test.part", "data": None, "subject": "part"}]
        ctx.emit_group(members, then=("test.all.done", None))

    @handlers.on("test.part", name="part")
    def part(data: Any, ctx: Context) -> None:  # noqa: ARG001
        ctx.session.execute(text("SELECT pg_sleep(60)"))

    parent = stored.record("test.whole")
    run_beside(stored, parent, handlers=handlers)
    eventually(lambda: stored.count("queued", "test.part") == 1)
    member = stored.rows("SELECT id FROM event WHERE type = 'test.part'")[0].id
    run_beside(stored, member, handlers=handlers)
    eventually(lambda: sleeping_statements(stored) == 1)

    cancel(stored, member)

    eventually(lambda: stored.count("queued", "test.all.done") == 1, timeout_seconds=20)
    assert stored.scalar("SELECT discarded FROM event_group") == 1
