"""Counters: every update is in them once, in whatever order transactions begin, write, end and are counted."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from holdfast.domain import transitions
from holdfast.domain.event import NewEvent
from holdfast.domain.histogram import BOUNDS_MS, BUCKETS
from holdfast.domain.transitions import AttemptError, Completion, Grant, Transition
from holdfast.runtime.ids import uuid7
from holdfast.runtime.telemetry import Log
from holdfast.storage import counting, events, lifecycle, sweeps
from holdfast.storage.counting import MAX_NAMES, count_page
from holdfast.storage.database import Database

COLUMNS = ("accepted", "processed", "failed", "retried", "dead", "discarded", "replayed", "lost")

TOKEN = uuid4()

ERROR = AttemptError("KeyError", "k", handler="book", duration_ms=30)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url, application_name="test", pool_size=10)
    yield database
    database.close()


def record(session: Session, tenant: str = "t", type_: str = "x") -> UUID:
    made = NewEvent(id=uuid7(), tenant=tenant, source="/s", ce_id=uuid4().hex, type=type_)
    events.record(session, [made], grace_seconds=0)
    return made.id


def move(session: Session, transition: Transition) -> None:
    assert lifecycle.apply(session, [transition])


def claim(event_id: UUID, version: int) -> Transition:
    return transitions.claim(event_id, version, Grant(TOKEN, "w", 30))


def settle(event_id: UUID, *, handler: str = "book", duration_ms: int = 30) -> Transition:
    return transitions.settle(event_id, TOKEN, Completion(handler, None, duration_ms))


def process(session: Session, event_id: UUID, **how: Any) -> None:
    move(session, claim(event_id, 1))
    move(session, settle(event_id, **how))


def count(database: Database, *, limit: int = 1000) -> int:
    """Until nothing is left; how many updates that were."""
    total = 0
    for _ in range(200):
        updates = database.call(count_page, limit=limit)
        total += updates
        if updates < limit:
            return total
    pytest.fail("counting does not end")


def rows(database: Database, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
    with database.transaction() as session:
        return [tuple(row) for row in session.execute(text(statement), parameters)]


def run(database: Database, statement: str, **parameters: Any) -> None:
    with database.transaction() as session:
        session.execute(text(statement), parameters)


def counters(database: Database, step_seconds: int = 60) -> dict[str, int]:
    """The sums over all tenants and steps."""
    sums = ", ".join(f"coalesce(sum({name}), 0)" for name in COLUMNS)
    [row] = rows(database, f"SELECT {sums} FROM event_statistics WHERE step_seconds = :step", step=step_seconds)  # noqa: S608
    return {name: int(value) for name, value in zip(COLUMNS, row, strict=True)}


def history(database: Database) -> dict[str, int]:
    """What the counters should be: read from the updates themselves."""
    [row] = rows(
        database,
        """
        SELECT count(*) FILTER (WHERE version = 1), count(*) FILTER (WHERE state = 'processed'),
               count(*) FILTER (WHERE state IN ('failed', 'dead')),
               count(*) FILTER (WHERE state = 'processing' AND attempt > 1), count(*) FILTER (WHERE state = 'dead'),
               count(*) FILTER (WHERE state = 'discarded'), count(*) FILTER (WHERE detail->>'reason' = 'replayed'),
               count(*) FILTER (WHERE detail->>'reason' = 'recovered')
        FROM event_update
        """,
    )
    return dict(zip(COLUMNS, row, strict=True))


def states(database: Database) -> dict[tuple[str, str], int]:
    found = rows(database, "SELECT tenant, state, events FROM state_count WHERE events <> 0")
    return {(tenant, state): events for tenant, state, events in found}


def actual_states(database: Database) -> dict[tuple[str, str], int]:
    found = rows(
        database,
        "SELECT tenant, state, count(*) FROM processing_state JOIN event ON event.id = event_id"
        " WHERE state IN ('queued', 'processing', 'failed', 'dead') GROUP BY 1, 2",
    )
    return {(tenant, state): events for tenant, state, events in found}


def handlers(database: Database, columns: str, step_seconds: int = 60) -> list[tuple[Any, ...]]:
    return rows(
        database,
        f"SELECT {columns} FROM handler_statistics WHERE step_seconds = :step ORDER BY tenant, kind, name",  # noqa: S608
        step=step_seconds,
    )


def bucket(counts: list[int]) -> list[int]:
    """Where something was counted."""
    return [number for number, events in enumerate(counts) for _ in range(events)]


class Life:
    """Events that move at random, in transactions side by side; each event belongs to one of these."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._open: dict[int, Session] = {}
        self._events: dict[int, list[UUID]] = {0: [], 1: [], 2: []}

    def hold(self, slot: int) -> None:
        """Be given an id, and write nothing yet: as a handler does before its first effect."""
        self._session(slot).execute(text("SELECT pg_current_xact_id()"))

    def record(self, slot: int) -> None:
        self._events[slot].append(record(self._session(slot), tenant=f"t{slot % 2}"))

    def move(self, slot: int, place: int, choice: int) -> None:
        if not (own := self._events[slot]):
            return
        event_id = own[place % len(own)]
        row = self._session(slot).execute(
            text("SELECT state, version, attempt, crashes FROM processing_state WHERE event_id = :id"), {"id": event_id}
        ).one()  # fmt: skip
        possible = _possible(event_id, row)
        if possible:
            lifecycle.apply(self._session(slot), [possible[choice % len(possible)]])

    def commit(self, slot: int) -> None:
        if session := self._open.pop(slot, None):
            session.commit()
            session.close()

    def end(self) -> None:
        for slot in list(self._open):
            self.commit(slot)

    def _session(self, slot: int) -> Session:
        if slot not in self._open:
            self._open[slot] = Session(self._database.engine)
        return self._open[slot]


def _possible(event_id: UUID, row: Any) -> list[Transition]:
    if row.state in ("queued", "failed"):
        wait = transitions.await_handler(event_id, row.version, delay_seconds=0)
        return [claim(event_id, row.version), claim(event_id, row.version), transitions.discard(event_id), wait]
    if row.state == "processing":
        return [
            settle(event_id), transitions.fail(event_id, TOKEN, ERROR, delay_seconds=0),
            transitions.bury(event_id, TOKEN, ERROR), transitions.release(event_id, TOKEN),
        ]  # fmt: skip
    return [transitions.replay(event_id)] if row.state in ("dead", "discarded") else []


SLOTS = st.integers(0, 2)
STEPS = st.one_of(
    st.tuples(st.sampled_from(["hold", "record", "record", "commit", "commit"]), SLOTS),
    st.tuples(st.just("move"), SLOTS, st.integers(0, 5), st.integers(0, 3)),
    st.tuples(st.just("move"), SLOTS, st.integers(0, 5), st.integers(0, 3)),
    st.tuples(st.just("count"), st.integers(1, 4)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=15, max_size=60))
def test_counters_are_what_the_history_says_however_transactions_and_turns_mix(
    database: Database, steps: list[tuple[Any, ...]]
) -> None:
    life = Life(database)
    for name, *arguments in steps:
        if name == "count":
            database.call(count_page, limit=arguments[0])
        else:
            getattr(life, name)(*arguments)
    life.end()

    count(database, limit=3)

    assert counters(database) == counters(database, 3600) == counters(database, 86_400) == history(database)
    assert states(database) == actual_states(database)
    assert database.call(count_page, limit=10) == 0, "nothing is counted twice"


def test_a_turn_that_is_rolled_back_has_counted_nothing(database: Database) -> None:
    with database.transaction() as session:
        record(session)

    with Session(database.engine) as session:
        assert count_page(session, limit=10) == 1
        session.rollback()  # as the server does when its client dies

    assert counters(database)["accepted"] == 0
    assert [count(database), count(database)] == [1, 0]
    assert counters(database)["accepted"] == 1


def test_of_two_processes_one_counts_and_the_other_goes_away(database: Database) -> None:
    with database.transaction() as session:
        for _ in range(20):
            record(session)
    barrier, answers = threading.Barrier(2), []

    def turn() -> None:
        with database.transaction() as session:
            barrier.wait()
            answers.append(count_page(session, limit=1000))
            barrier.wait()

    threads = [threading.Thread(target=turn) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == [0, 20]
    assert counters(database)["accepted"] == 20


def test_what_commits_while_a_page_is_read_is_left_to_the_next_one(database: Database) -> None:
    late = Session(database.engine)
    late.execute(text("SELECT pg_current_xact_id()"))
    with database.transaction() as session:
        record(session)
    record(late)

    def commit(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "WITH page" in statement and late.in_transaction():
            late.commit()

    event.listen(database.engine, "before_cursor_execute", commit)
    try:
        first = database.call(count_page, limit=10)
    finally:
        event.remove(database.engine, "before_cursor_execute", commit)
        late.close()

    assert first == 1, "the present did not see it, so the cursor does not either"
    assert count(database) == 1
    assert counters(database)["accepted"] == 2


def test_an_attempt_is_counted_by_its_handler_with_its_times(database: Database) -> None:
    with database.transaction() as session:
        event_id = record(session, type_="com.order")
        process(session, event_id, duration_ms=120)
    run(database, "UPDATE event_update SET at = at - interval '3 s' WHERE version = 2")
    run(database, "UPDATE event_update SET at = at - interval '5 s' WHERE version = 1")
    run(database, "UPDATE event SET received_at = received_at - interval '5 s'")

    count(database)

    [(kind, name, processed, ran, waited, end_to_end)] = handlers(
        database, "kind, name, processed, run, wait, end_to_end"
    )
    assert (kind, name, processed) == ("handler", "book", 1)
    assert len(ran) == BUCKETS
    assert bucket(ran) == [BOUNDS_MS.index(100) + 1]
    assert bucket(waited) == [BOUNDS_MS.index(1000) + 1], "due five seconds ago, claimed three seconds ago"
    assert bucket(end_to_end) == [BOUNDS_MS.index(5000) + 1]


@pytest.mark.parametrize("limit", [1, 1000], ids=["each in a page of its own", "all in one page"])
def test_the_wait_of_a_retry_begins_when_it_is_due(database: Database, limit: int) -> None:
    steps: list[Callable[[UUID], Transition]] = [
        lambda id_: claim(id_, 1), lambda id_: transitions.fail(id_, TOKEN, ERROR, delay_seconds=0),
        lambda id_: claim(id_, 3), settle,
    ]  # fmt: skip
    with database.transaction() as session:
        event_id = record(session)
    for step in steps:
        with database.transaction() as session:
            move(session, step(event_id))
    # Failed an hour ago with a retry half an hour later, and claimed 40 minutes after that was due.
    run(
        database,
        """
        UPDATE event_update SET at = at - interval '70 min', detail = detail || '{"retry_in_seconds": 1800}'
        WHERE version = 3;
        UPDATE attempt_error SET at = at - interval '70 min'
        """,
    )

    count(database, limit=limit)

    failures = rows(
        database,
        "SELECT sum(failed), sum(processed) FROM handler_statistics WHERE step_seconds = 86400 AND name = 'book'",
    )
    waits = rows(database, "SELECT wait FROM handler_statistics WHERE step_seconds = 60 AND processed = 1")
    assert [tuple(map(int, row)) for row in failures] == [(1, 1)]
    assert bucket(waits[0][0]) == [BOUNDS_MS.index(300_000) + 1]
    assert counters(database) == history(database)


def test_what_no_handler_had_is_counted_by_its_type(database: Database) -> None:
    with database.transaction() as session:
        lost, unknown = record(session, type_="com.lost"), record(session, type_="com.unknown")
        move(session, claim(lost, 1))
        move(session, claim(unknown, 1))
        move(session, transitions.bury(unknown, TOKEN, AttemptError("no_handler", "nobody")))
    run(database, "UPDATE processing_state SET lease_expires_at = now() WHERE event_id = :id", id=lost)
    with database.transaction() as session:
        move(session, transitions.recover(lost, TOKEN, crashes=0))

    count(database)

    assert handlers(database, "kind, name, dead, lost") == [("type", "com.lost", 0, 1), ("type", "com.unknown", 1, 0)]


def test_a_tenant_has_a_bounded_number_of_names_and_the_rest_is_one(database: Database) -> None:
    with database.transaction() as session:
        for number in range(MAX_NAMES + 7):
            process(session, record(session, tenant="many"), handler=f"handler-{number:02}")
        process(session, record(session, tenant="few"), handler="only")
    count(database)
    with database.transaction() as session:
        process(session, record(session, tenant="many"), handler="handler-00")
        process(session, record(session, tenant="many"), handler="late")
    count(database)

    found = handlers(database, "tenant, kind, name, processed", 86_400)
    assert len(found) == MAX_NAMES + 2
    assert ("few", "handler", "only", 1) in found
    assert ("many", "handler", "handler-00", 2) in found
    assert ("many", "other", "", 8) in found


def test_what_is_older_than_charts_show_is_forgotten_once_an_hour(database: Database) -> None:
    with database.transaction() as session:
        process(session, record(session))
    count(database)
    for days in (0, 2, 100):
        for table, columns in (("event_statistics", ""), ("handler_statistics", ", kind, name, run, wait, end_to_end")):
            run(
                database,
                f"INSERT INTO {table} (tenant, step_seconds, at{columns}) SELECT tenant, step_seconds,"  # noqa: S608
                f" at - make_interval(days => :days){columns} FROM {table} WHERE at > now() - interval '36 h'"
                " ON CONFLICT DO NOTHING",
                days=days,
            )
    run(database, "INSERT INTO statistics_name VALUES ('t', 'handler', 'gone', now() - interval '100 days')")
    with database.transaction() as session:
        record(session)
    run(database, "UPDATE statistics_cursor SET counted_at = counted_at - interval '1 hour'")

    count(database)

    for table in ("event_statistics", "handler_statistics"):
        kept = rows(
            database,
            f"SELECT step_seconds, (now() - at > interval '36 h') FROM {table} GROUP BY 1, 2 ORDER BY 1, 2",  # noqa: S608
        )
        assert kept == [(60, False), (3600, False), (3600, True), (86_400, False), (86_400, True)]
        oldest = rows(database, f"SELECT max(now() - at) FROM {table}")  # noqa: S608
        assert oldest[0][0] < timedelta(days=91)
    assert rows(database, "SELECT name FROM statistics_name") == [("book",)]


def test_counting_is_due_when_there_is_something_to_count_and_the_last_turn_is_a_while_ago(database: Database) -> None:
    def is_due() -> bool:
        return sweeps.due_sweeps(database, after_seconds=60).count

    run(database, "UPDATE statistics_cursor SET counted_at = now() - interval '1 hour'")
    assert not is_due(), "an idle stack counts nothing"
    with database.transaction() as session:
        record(session)
    assert is_due()
    run(database, "UPDATE statistics_cursor SET counted_at = now()")
    assert not is_due()
    assert database.call(count_page, limit=10, after_seconds=counting.COUNT_AFTER_SECONDS) == 0
    run(database, "UPDATE statistics_cursor SET counted_at = now() + interval '1 hour'")
    assert is_due(), "the clock was set back"
    count(database)
    run(database, "UPDATE statistics_cursor SET counted_at = now() - interval '1 hour'")
    assert not is_due()


def test_a_database_restored_into_a_younger_server_goes_on_counting(database: Database) -> None:
    with database.transaction() as session:
        record(session)
        process(session, record(session))
    count(database)
    before = counters(database)
    run(database, "UPDATE statistics_cursor SET counted = '9000000:9000000:', counted_at = now() - interval '1 h'")
    run(database, "UPDATE state_count SET events = 77")

    with capture_logs() as logged:
        assert database.call(count_page, limit=10) == 0
    with database.transaction() as session:
        record(session)
    count(database)

    assert [line["event"] for line in logged] == [Log.COUNTING_STARTED_OVER]
    assert counters(database) == before | {"accepted": 3}
    assert states(database) == actual_states(database)
