"""Recording, claiming, holding, settling and sweeping, with the races that matter."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from holdfast.domain import transitions
from holdfast.domain.errors import AlreadyProcessed, LeaseLost
from holdfast.domain.event import Doorbell, Lease, NewEvent, canonical_json
from holdfast.domain.state import State
from holdfast.domain.transitions import Completion, settle
from holdfast.runtime.ids import uuid7
from holdfast.storage import backlog, claims, dispatch, event_views, events, leases, lifecycle
from holdfast.storage.database import Database


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url, application_name="test", pool_size=50)
    yield database
    database.close()


def new_event(**attributes: Any) -> NewEvent:
    defaults: dict[str, Any] = {"id": uuid7(), "tenant": "t", "source": "/s", "ce_id": uuid4().hex, "type": "x"}
    return NewEvent(**(defaults | attributes))


def record(database: Database, *wanted: NewEvent) -> list[events.Recorded]:
    with database.transaction() as session:
        return events.record(session, wanted, grace_seconds=0)


def claim(database: Database, event_id: UUID, version: int = 1, lease_seconds: float = 30) -> Lease | None:
    with database.transaction() as session:
        claimed = claims.claim_events(session, [(event_id, version)], owner="w", lease_seconds=lease_seconds)
    return claimed[0][0] if claimed else None


def scalar(database: Database, statement: str) -> Any:
    with database.transaction() as session:
        return session.scalar(text(statement))


def at_once(work: Callable[[int], Any], times: int) -> list[Any]:
    """Run ``work`` in as many threads, all let go at one moment."""
    barrier = threading.Barrier(times)

    def run(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(run, range(times)))


@pytest.mark.parametrize(
    ("sent", "data"),
    [
        ({"data_json": canonical_json({"b": [1, None], "a": "ü"})}, {"a": "ü", "b": [1, None]}),
        ({"data_json": "null"}, None),
        ({"data_json": '""'}, ""),
        ({"data_bytes": b"\x00\xff"}, b"\x00\xff"),
        ({"data_bytes": b""}, b""),
        ({}, None),
    ],
)
def test_data_comes_back_as_it_was_sent(database: Database, sent: dict[str, Any], data: Any) -> None:
    event = new_event(**sent, extensions={"comexampleextension": 7}, subject="ü", audience="user-1")

    record(database, event)

    with database.transaction() as session:
        view = event_views.find(session, event_id=event.id, tenant="t")
    assert view is not None
    assert view.event.data == data
    assert (view.event.extensions, view.event.subject, view.event.audience) == (
        {"comexampleextension": 7},
        "ü",
        "user-1",
    )


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ({"data_json": "null"}, "json 'null'"),
        ({"data_json": " 1.10"}, "json ' 1.10'"),
        ({"data_bytes": b""}, "bytes ''"),
        ({}, "nothing"),
    ],
)
def test_a_null_empty_bytes_and_no_data_are_three_things(database: Database, sent: dict[str, Any], stored: str) -> None:
    record(database, new_event(**sent))

    found = """SELECT coalesce(CASE WHEN is_json THEN 'json ' ELSE 'bytes ' END
                               || quote_literal(convert_from(data_bytes, 'UTF8')), 'nothing') FROM event"""
    assert scalar(database, found) == stored


def test_another_tenant_does_not_find_the_event(database: Database) -> None:
    event = new_event()
    record(database, event)

    with database.transaction() as session:
        assert event_views.find(session, event_id=event.id, tenant="other") is None


def test_the_same_identity_and_data_is_a_duplicate_with_the_originals_state(database: Database) -> None:
    original = new_event(data_json="1")
    record(database, original)
    claim(database, original.id)

    again = record(database, new_event(ce_id=original.ce_id, data_json="1", subject="another"))[0]

    assert again.is_duplicate
    assert (again.update.event_id, again.update.state) == (original.id, State.PROCESSING)


def test_the_same_identity_with_other_data_is_a_conflict_and_changes_nothing(database: Database) -> None:
    original = new_event(data_json="1")
    record(database, original)

    again = record(database, new_event(ce_id=original.ce_id, data_json="2"))[0]

    assert again.is_conflict
    assert scalar(database, "SELECT convert_from(data_bytes, 'UTF8') FROM event") == "1"


def test_another_tenants_identity_is_its_own(database: Database) -> None:
    original = new_event()
    record(database, original)

    assert not record(database, new_event(tenant="other", ce_id=original.ce_id))[0].is_duplicate


def test_duplicates_within_one_list_collapse(database: Database) -> None:
    first = new_event(data_json="1")

    recorded = record(database, first, new_event(ce_id=first.ce_id, data_json="1"), new_event())

    assert [each.is_duplicate for each in recorded] == [False, True, False]
    assert scalar(database, "SELECT count(*) FROM event") == 2


def test_one_identity_fifty_times_at_once_is_one_event(database: Database) -> None:
    ce_id = uuid4().hex

    recorded = at_once(lambda _: record(database, new_event(ce_id=ce_id, data_json="1"))[0], 50)

    assert sorted(each.is_duplicate for each in recorded) == [False, *[True] * 49]
    assert scalar(database, "SELECT count(*) FROM processing_state") == 1


def test_one_doorbell_many_times_at_once_has_one_winner(database: Database) -> None:
    event = new_event()
    record(database, event)

    leases = at_once(lambda _: claim(database, event.id), 50)

    assert sum(lease is not None for lease in leases) == 1
    assert scalar(database, "SELECT attempt FROM processing_state") == 1


def test_an_event_is_settled_once(database: Database) -> None:
    event = new_event()
    record(database, event)
    lease = claim(database, event.id)
    assert lease is not None
    done = settle(event.id, lease.token, Completion("h", {"ok": True}, 3))

    with database.transaction() as session:
        lifecycle.hold(session, lease)
        first = lifecycle.apply(session, [done])
    with database.transaction() as session:
        second = lifecycle.apply(session, [done])

    assert [update.detail for update in first] == [{"result": {"ok": True}}]
    assert second == []
    assert scalar(database, "SELECT count(*) FROM processed_event_log") == 1


def test_a_recovered_event_ignores_its_late_worker(database: Database) -> None:
    event = new_event()
    record(database, event)
    late = claim(database, event.id, lease_seconds=0)
    assert late is not None
    with database.transaction() as session:
        leases.recover_expired(session, limit=10)

    with database.transaction() as session, pytest.raises(LeaseLost):
        lifecycle.hold(session, late)
    with database.transaction() as session:
        assert lifecycle.apply(session, [settle(event.id, late.token, Completion("h", None, 3))]) == []


def test_a_late_worker_is_refused_while_another_one_holds_the_event(database: Database) -> None:
    event = new_event()
    record(database, event)
    late = claim(database, event.id, lease_seconds=0)
    with database.transaction() as session:
        leases.recover_expired(session, limit=10)
        session.execute(text("UPDATE processing_state SET available_at = now()"))
    current = claim(database, event.id, version=3)
    assert late is not None
    assert current is not None

    with database.transaction() as session, pytest.raises(LeaseLost):
        lifecycle.hold(session, late)
    with database.transaction() as session:
        lifecycle.hold(session, current)


def test_a_running_transactional_handler_keeps_the_sweep_away(database: Database) -> None:
    event = new_event()
    record(database, event)
    lease = claim(database, event.id, lease_seconds=0)
    assert lease is not None

    with database.transaction() as running:
        lifecycle.hold(running, lease)
        with database.transaction() as sweep:
            recovered = leases.recover_expired(sweep, limit=10)

    assert recovered == []


def test_the_log_refuses_a_second_effect_even_where_the_state_would_allow_it(database: Database) -> None:
    event = new_event()
    record(database, event)
    lease = claim(database, event.id)
    assert lease is not None
    log_row = f"INSERT INTO processed_event_log VALUES ('{event.id}', 'h', 1, '{lease.token}', NULL, 0, now())"  # noqa: S608
    with database.transaction() as session:
        session.execute(text(log_row))

    with database.transaction() as session, pytest.raises(AlreadyProcessed):
        lifecycle.hold(session, lease)
    with pytest.raises(AlreadyProcessed), database.transaction() as session:
        lifecycle.apply(session, [settle(event.id, lease.token, Completion("h", None, 3))])


def test_the_third_lost_worker_makes_a_dead_letter(database: Database) -> None:
    event = new_event()
    record(database, event)

    states = []
    for _ in range(3):
        with database.transaction() as session:
            session.execute(text("UPDATE processing_state SET available_at = now()"))
        version = scalar(database, "SELECT version FROM processing_state")
        claim(database, event.id, version, lease_seconds=0)
        with database.transaction() as session:
            states += [update.state for update in leases.recover_expired(session, limit=10)]

    assert states == [State.QUEUED, State.QUEUED, State.DEAD]
    assert scalar(database, "SELECT error_type FROM attempt_error") == "crash_loop"


def test_two_sweeps_at_once_recover_each_event_once(database: Database) -> None:
    wanted = [new_event() for _ in range(20)]
    record(database, *wanted)
    for event in wanted:
        claim(database, event.id, lease_seconds=0)

    def sweep(_: int) -> list[UUID]:
        with database.transaction() as session:
            return [update.event_id for update in leases.recover_expired(session, limit=20)]

    recovered = [event_id for ids in at_once(sweep, 4) for event_id in ids]

    assert sorted(recovered) == sorted(event.id for event in wanted)


def test_redispatch_rings_ever_more_rarely_and_keeps_the_version(database: Database) -> None:
    event = new_event()
    record(database, event)
    waits = []
    for _ in range(9):
        with database.transaction() as session:
            session.execute(text("UPDATE processing_state SET next_dispatch_at = now()"))
            assert dispatch.redispatch_due(session, limit=10) == [Doorbell(event.id, 1, tenant="t")]
            assert dispatch.redispatch_due(session, limit=10) == []
            waits.append(
                session.scalar(text("SELECT extract(epoch FROM next_dispatch_at - now()) FROM processing_state"))
            )

    assert waits == [30, 60, 120, 240, 480, 960, 1800, 1800, 1800]


def test_a_doorbell_that_could_not_be_rung_is_due_again(database: Database) -> None:
    unheard, claimed = new_event(), new_event()
    record(database, unheard, claimed)
    with database.transaction() as session:
        doorbells = dispatch.redispatch_due(session, limit=10)
    claim(database, claimed.id)

    with database.transaction() as session:
        dispatch.undo_redispatch(session, [*doorbells, (unheard.id, 99), (uuid4(), 1)])

    with database.transaction() as session:
        assert dispatch.redispatch_due(session, limit=10) == [Doorbell(unheard.id, 1, tenant="t")]
        assert session.scalar(text("SELECT max(dispatches) FROM processing_state")) == 1


def test_batches_with_the_same_events_in_other_orders_do_not_deadlock(database: Database) -> None:
    identities = [uuid4().hex for _ in range(1500)]

    def record_all(number: int) -> int:
        ordered = identities if number % 2 else list(reversed(identities))
        recorded = record(database, *(new_event(ce_id=ce_id) for ce_id in ordered))
        return sum(not each.is_duplicate for each in recorded)

    assert sum(at_once(record_all, 4)) == 1500


def test_a_conflict_within_one_list_is_told_and_the_first_one_stands(database: Database) -> None:
    first = new_event(data_json="1")

    recorded = record(database, first, new_event(ce_id=first.ce_id, data_json="2"))

    assert [each.is_conflict for each in recorded] == [False, True]
    assert [each.update.event_id for each in recorded] == [first.id, first.id]


def test_answers_are_in_the_order_asked(database: Database) -> None:
    wanted = [new_event(ce_id=ce_id) for ce_id in "cab"]

    assert [each.update.event_id for each in record(database, *wanted)] == [event.id for event in wanted]


def test_no_events_are_no_work(database: Database) -> None:
    assert record(database) == []


def test_the_backlog_is_counted_by_state_and_age(database: Database) -> None:
    record(database, *(new_event() for _ in range(3)))
    with database.transaction() as session:
        session.execute(text("UPDATE processing_state SET available_at = now() - interval '90 seconds'"))

        assert backlog.open_events(session) == {State.FAILED: 0, State.PROCESSING: 0, State.QUEUED: 3}
        assert backlog.oldest_due_age_seconds(session) == 90


def test_a_discard_is_news_to_clients_that_saw_a_claim_which_was_undone(database: Database) -> None:
    """A claim's commit is not durable: PostgreSQL may crash after its update was published."""
    event = new_event()
    record(database, event)
    with database.transaction() as session:
        seen = claims.claim_events(session, [(event.id, 1)], owner="w", lease_seconds=30)[0][1]
        session.rollback()

    with database.transaction() as session:
        discarded = lifecycle.apply(session, [transitions.discard(event.id)])[0]

    assert discarded.version > seen.version
