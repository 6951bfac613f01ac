"""Attempts that end at the same moment share a commit, and nothing else."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from holdfast.domain.event import Lease
from holdfast.local.fixtures import Eventually
from holdfast.processor import Context, Handlers
from holdfast.storage import claims
from holdfast.storage.database import Database

COUNT = 50

MakeExecutor = Callable[..., Any]

LOCK = 7001

WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"

WAIT = f"""
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared({LOCK}); RETURN NEW; END $$;
CREATE TRIGGER wait BEFORE INSERT ON processed_event_log FOR EACH ROW EXECUTE FUNCTION wait();
"""

SETTLES = "SELECT count(DISTINCT CAST(xmin AS text)) FROM event_update WHERE state = 'processed'"

POISON = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'poison'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON processed_event_log FOR EACH ROW WHEN (NEW.result = '"poison"')
    EXECUTE FUNCTION refuse();
"""

handlers = Handlers()


@handlers.on("test.done", name="done")
def answer(data: Any, ctx: Context) -> Any:  # noqa: ARG001 (without a session: it needs no transaction of its own)
    return data


@contextlib.contextmanager
def held_up(stored: Any) -> Iterator[None]:
    """Within the block every settle waits, within its transaction; claims do not."""
    stored.run(WAIT)
    with stored.database.engine.connect() as connection:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
        yield


def claimed(stored: Any, *results: Any) -> list[Lease]:
    event_ids = [stored.record("test.done", result) for result in results]
    with stored.database.transaction() as session:
        made = claims.claim_events(session, [(each, 1) for each in event_ids], owner="test", lease_seconds=60)
    by_id = {lease.event.id: lease for lease, _ in made}
    return [by_id[each] for each in event_ids]


@pytest.fixture
def settle(executor: MakeExecutor, stored: Any, eventually: Eventually) -> Callable[..., None]:
    """Run events in a thread each; the first settle is held up until all others wait for it."""

    def run(leases: list[Lease]) -> None:
        made = executor(handlers)
        with ThreadPoolExecutor(len(leases)) as pool:
            with held_up(stored):
                first = pool.submit(made.run, leases[0])
                eventually(lambda: stored.scalar(WAITING) > 0, message="a settle waits")
                others = [pool.submit(made.run, lease) for lease in leases[1:]]
                ends = made._joined._ends
                eventually(lambda: len(ends._left) == len(leases) - 1, message="the others wait for it")
            for each in (first, *others):
                each.result(30)

    return run


def test_settles_that_wait_are_one_transaction(stored: Any, live: Any, settle: Any) -> None:
    leases = claimed(stored, *range(COUNT))

    settle(leases)

    assert stored.scalar(SETTLES) == 2, "the first alone, all others together"
    results = {row.event_id: row.result for row in stored.rows("SELECT event_id, result FROM processed_event_log")}
    assert [results[lease.event.id] for lease in leases] == list(range(COUNT)), "each its own"
    assert [live.told(lease.event.id)[-1] for lease in leases] == [("processed", 3, 0)] * COUNT


def test_a_lost_lease_among_them_is_lost_alone(stored: Any, settle: Any, log_text: Callable[[], str]) -> None:
    leases = claimed(stored, *range(COUNT))
    lost = leases[COUNT // 2]
    gone = "UPDATE processing_state SET lease_token = gen_random_uuid(), lease_owner = 'other' WHERE event_id = "
    stored.run(f"{gone}'{lost.event.id}'")

    settle(leases)

    assert stored.row(lost.event.id).lease_owner == "other"
    assert stored.log(lost.event.id) == []
    [told] = [line for line in log_text().splitlines() if "lease lost" in line]
    assert str(lost.event.id) in told, "and no other is told so"
    assert [stored.state(each.event.id) for each in leases if each is not lost] == ["processed"] * (COUNT - 1)


def test_one_that_postgresql_refuses_takes_no_other_along(stored: Any, settle: Any) -> None:
    stored.run(POISON)
    leases = claimed(stored, *("poison" if number == 7 else number for number in range(COUNT)))

    settle(leases)

    poisoned = leases[7].event.id
    assert [stored.state(each.event.id) for each in leases] == [
        "failed" if number == 7 else "processed" for number in range(COUNT)
    ]
    assert "poison" in stored.error(poisoned).message
    assert stored.log(poisoned) == []


def test_one_that_was_processed_before_takes_no_other_along(stored: Any, settle: Any) -> None:
    leases = claimed(stored, *range(COUNT))
    before = leases[3].event.id
    stored.run(f"INSERT INTO processed_event_log VALUES ('{before}', 'h', 1, gen_random_uuid(), '1', 0, now())")  # noqa: S608

    settle(leases)

    assert [stored.state(each.event.id) for each in leases] == ["processed"] * COUNT
    assert [entry.handler for entry in stored.log(before)] == ["h"]


def test_a_handler_that_writes_settles_in_its_own_transaction(stored: Any, executor: MakeExecutor) -> None:
    writing = Handlers()

    @writing.on("test.done", name="writes")
    def write(data: Any, ctx: Context) -> None:  # noqa: ARG001
        ctx.session.execute(text("INSERT INTO effect VALUES (:id, '')"), {"id": ctx.event.id})

    [lease] = claimed(stored, None)

    executor(writing).run(lease)

    same = (
        "SELECT CAST(e.xmin AS text) = CAST(u.xmin AS text) FROM effect e JOIN event_update u USING (event_id)"
        " WHERE u.state = 'processed'"
    )
    assert stored.scalar(same) is True


def test_a_handler_that_asks_for_no_session_keeps_no_connection_while_it_runs(
    stored: Any, executor: MakeExecutor
) -> None:
    busy: list[int] = []
    idle = Handlers()

    @idle.on("test.done", name="idle")
    def look(data: Any, ctx: Context) -> None:  # noqa: ARG001
        busy.append(pool.checkedout())
        _ = ctx.session
        busy.append(pool.checkedout())

    made = executor(idle)
    pool: Any = made._settler._effects.engine.pool
    [lease] = claimed(stored, None)

    made.run(lease)

    assert busy == [0, 1]


def test_a_session_is_opened_once_for_all_threads_of_a_handler(stored: Any, executor: MakeExecutor) -> None:
    sessions: list[Any] = []
    threaded = Handlers()

    @threaded.on("test.done", name="threads")
    def ask(data: Any, ctx: Context) -> None:  # noqa: ARG001
        threads = [threading.Thread(target=lambda: sessions.append(ctx.session)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    [lease] = claimed(stored, None)

    executor(threaded).run(lease)

    assert len(sessions) == 8
    assert len({id(each) for each in sessions}) == 1
    assert stored.state(lease.event.id) == "processed"


def test_a_worker_killed_within_a_joined_settle_loses_and_doubles_nothing(
    start: Callable[..., Any], stored: Any, live: Any, eventually: Eventually
) -> None:
    worker = start(LEASE_SECONDS="2")
    event_ids = [stored.record("test.nothing") for _ in range(30)]
    with held_up(stored):
        live.ring(*((each, 1) for each in event_ids))
        eventually(lambda: stored.scalar(WAITING) > 0, message="a settle waits")
        worker.kill()
    assert stored.count("processed") == 0, "nothing of it was committed"

    start(LEASE_SECONDS="2")

    eventually(lambda: stored.count("processed") == 30, timeout_seconds=60)
    assert stored.scalar("SELECT count(*) FROM processed_event_log") == 30
    assert stored.scalar("SELECT max(crashes) FROM processing_state") == 1


@pytest.mark.parametrize("kind", ["test.nothing", "test.order"])
def test_what_has_ended_is_settled_and_told_while_the_only_thread_is_busy_with_the_next_event(
    start: Callable[..., Any], stored: Any, live: Any, database: Database, eventually: Eventually, kind: str
) -> None:
    start(PROCESSOR_THREADS="1")
    quick = [stored.record("test.nothing") for _ in range(300)]
    live.ring(*((each, 1) for each in quick))
    eventually(lambda: stored.count("processed") == len(quick), timeout_seconds=60)
    with database.transaction() as session:
        session.connection().exec_driver_sql("SELECT pg_advisory_xact_lock(4242)")
        ended = [stored.record(kind, {"order_id": "7", "amount": 1}) for _ in range(5)]
        blocked = stored.record("test.blocked")
        live.ring(*((each, 1) for each in (*ended, blocked)))

        eventually(lambda: stored.state(blocked) == "processing", message="the thread is busy")
        eventually(
            lambda: [stored.state(each) for each in ended] == ["processed"] * 5, message="and nobody waits for it"
        )
        eventually(lambda: [live.told(each)[-1][0] for each in ended] == ["processed"] * 5, message="nor to be told")
        assert stored.state(blocked) == "processing"


def test_an_outage_while_several_wait_to_be_settled_gives_all_of_them_back(stored: Any, executor: MakeExecutor) -> None:
    leases = claimed(stored, *range(COUNT))
    made = executor(handlers, statement_timeout_seconds=1)
    with ThreadPoolExecutor(len(leases)) as pool, held_up(stored):  # so PostgreSQL says neither yes nor no to a settle
        running = [pool.submit(made.run, lease) for lease in leases]

        for each in running:
            each.result(30)

    assert [stored.state(lease.event.id) for lease in leases] == ["queued"] * COUNT
    assert {stored.row(lease.event.id).attempt for lease in leases} == {0}, "an outage is no attempt"
