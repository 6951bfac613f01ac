"""Finding due events without a doorbell, keeping a lease, and taking the events of one subject in turn."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from holdfast.domain.errors import LaneTaken, LeaseLost
from holdfast.domain.event import Doorbell, Lease, NewEvent
from holdfast.domain.transitions import AttemptError, Completion, Transition, bury, fail, settle
from holdfast.local.fixtures import Eventually
from holdfast.runtime.ids import uuid7
from holdfast.storage import candidates, claims, dispatch, events, lanes, leases, lifecycle, served
from holdfast.storage.database import Database

ORDERED = ["order.placed"]

ERROR = AttemptError("ValueError", "no")

WAITING = """SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"""


class Table:
    """Events of subject ``s`` and the statements on them, each in a transaction of its own."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def record(self, type_: str = "order.placed", subject: str | None = "s", **attributes: Any) -> UUID:
        defaults: dict[str, Any] = {"tenant": "t", "source": "/s"}
        event = NewEvent(
            id=uuid7(), ce_id=uuid4().hex, type=type_, subject=subject, **(defaults | attributes)
        )  # fmt: skip
        with self.database.transaction() as session:
            events.record(session, [event], grace_seconds=3600)
        return event.id

    def claim(self, event_id: UUID, version: int = 1) -> Lease | None:
        try:
            with self.database.transaction() as session:
                claimed = claims.claim_events(session, [(event_id, version)], owner="w", lease_seconds=30)
                lanes.wait_for_turn(session, [] if claimed else [event_id])
        except LaneTaken:
            return None
        return claimed[0][0] if claimed else None

    def claimed(self, event_id: UUID, version: int = 1) -> Lease:
        lease = self.claim(event_id, version)
        assert lease is not None
        return lease

    def claim_due(self, limit: int = 100, **options: Any) -> list[Lease]:
        with self.database.transaction() as session:
            due = claims.claim_due(session, owner="w", lease_seconds=30, limit=limit, **options)
        return [lease for lease, _ in due]

    def apply(self, transition: Transition) -> int:
        with self.database.transaction() as session:
            return len(lifecycle.apply(session, [transition]))

    def settle(self, lease: Lease) -> None:
        assert self.apply(settle(lease.event.id, lease.token, Completion("h", None, 1))) == 1

    def run(self, statement: str) -> Any:
        with self.database.transaction() as session:
            return session.execute(text(statement))

    def next_in_lane(self, lease: Lease) -> Doorbell | None:
        assert lease.lane is not None
        with self.database.transaction() as session:
            return lanes.promote(session, lease.lane)


@pytest.fixture
def table(database_url: str) -> Iterator[Table]:
    database = Database(database_url, application_name="test", pool_size=20)
    with database.transaction() as session:
        served.declare_ordered(session, ORDERED)
    yield Table(database)
    database.close()


def ids(leases: list[Lease]) -> list[UUID]:
    return [lease.event.id for lease in leases]


def test_due_events_are_claimed_oldest_first_and_once(table: Table) -> None:
    recorded = [table.record(subject=None) for _ in range(5)]
    table.run("UPDATE processing_state SET available_at = now() + interval '1 h' WHERE event_id = '%s'" % recorded[0])  # noqa: S608, UP031

    first, rest = table.claim_due(limit=3), table.claim_due()

    assert sorted(ids(first)) == recorded[1:4]
    assert ids(rest) == recorded[4:]
    assert all(lease.attempt == 1 and lease.version == 2 for lease in first + rest)


def test_rows_that_another_search_looks_at_are_skipped(table: Table) -> None:
    recorded = [table.record(subject=None) for _ in range(2)]

    with table.database.transaction() as session:
        taken = claims.claim_due(session, owner="w", lease_seconds=30, limit=1)
        others = table.claim_due()

    assert [lease.event.id for lease, _ in taken] == recorded[:1]
    assert ids(others) == recorded[1:]


def test_an_event_that_has_just_become_due_is_left_to_its_doorbell(table: Table) -> None:
    late = table.record(subject=None)
    table.run("UPDATE processing_state SET available_at = now() - interval '1 min'")
    table.record(subject=None)

    assert ids(table.claim_due(overdue_seconds=30)) == [late]


def test_suspects_and_others_are_found_apart(table: Table) -> None:
    suspect, other = table.record(subject=None), table.record(subject=None)
    table.run(f"UPDATE processing_state SET crashes = 1 WHERE event_id = '{suspect}'")  # noqa: S608

    assert ids(table.claim_due(is_suspect=True)) == [suspect]
    assert ids(table.claim_due()) == [other]


def test_a_redispatched_doorbell_says_whether_its_event_is_a_suspect(table: Table) -> None:
    suspect = table.record(subject=None)
    table.run("UPDATE processing_state SET crashes = 1, next_dispatch_at = now()")

    with table.database.transaction() as session:
        assert dispatch.redispatch_due(session, limit=10) == [Doorbell(suspect, 1, is_suspect=True, tenant="t")]


def test_a_lease_that_is_held_is_extended_and_a_lost_one_is_not(table: Table) -> None:
    table.record(subject=None), table.record(subject=None)
    held, lost = table.claim_due()
    table.run("UPDATE processing_state SET lease_expires_at = now() + interval '1 s'")
    table.run(f"UPDATE processing_state SET lease_token = '{uuid4()}' WHERE event_id = '{lost.event.id}'")  # noqa: S608

    with table.database.transaction() as session:
        kept = leases.extend(session, [held, lost])

    assert kept == {held.event.id: True}
    remaining = "SELECT event_id FROM processing_state WHERE lease_expires_at > now() + interval '20 s'"
    assert table.run(remaining).scalars().all() == [held.event.id]


def test_a_lease_whose_row_is_locked_keeps_no_other_waiting(table: Table) -> None:
    table.record(subject=None), table.record(subject=None)
    free, locked = table.claim_due()
    lock = text("SELECT FROM processing_state WHERE event_id = :id FOR NO KEY UPDATE")

    with table.database.transaction() as writing, table.database.transaction() as session:
        writing.execute(lock, {"id": locked.event.id})
        session.execute(text("SET LOCAL statement_timeout = '5s'"))
        assert leases.extend(session, [free, locked]) == {free.event.id: True, locked.event.id: False}


def test_a_freshly_expired_lease_can_be_left_to_somebody_else(table: Table) -> None:
    table.record(subject=None)
    table.claim_due()
    table.run("UPDATE processing_state SET lease_expires_at = now() - interval '5 s'")

    with table.database.transaction() as session:
        assert leases.recover_expired(session, limit=10, expired_for_seconds=10) == []
        assert len(leases.recover_expired(session, limit=10, expired_for_seconds=1)) == 1


def test_a_statement_of_a_held_event_ends_at_its_timeout(table: Table) -> None:
    lease = table.claimed(table.record())

    with table.database.transaction() as session:
        lifecycle.hold(session, lease, timeout_seconds=0.25)
        assert session.scalar(text("SHOW statement_timeout")) == "250ms"
        assert session.scalar(text("SHOW idle_in_transaction_session_timeout")) == "10250ms"
    with table.database.transaction() as session:
        assert session.scalar(text("SHOW statement_timeout")) == "30s"
        lifecycle.hold(session, lease)
        assert session.scalar(text("SHOW statement_timeout")) == "30s"


def test_the_second_event_of_a_subject_waits_for_the_first(table: Table) -> None:
    first, second = table.record(), table.record()

    assert table.claim(second) is None
    lease = table.claimed(first)
    assert table.claim(second) is None
    table.settle(lease)

    assert table.next_in_lane(lease) == Doorbell(second, 1, tenant="t")
    assert table.claim(second) is not None


def test_a_retry_and_a_crash_keep_their_place(table: Table) -> None:
    first, second = table.record(), table.record()

    table.apply(fail(first, table.claimed(first).token, ERROR, delay_seconds=0))
    assert table.claim(second) is None
    lease = table.claimed(first, 3)
    table.run("UPDATE processing_state SET lease_expires_at = now() - interval '1 s' WHERE state = 'processing'")
    with table.database.transaction() as session:
        leases.recover_expired(session, limit=10)

    assert table.claim(second) is None
    assert table.next_in_lane(lease) is None, "the first is not due yet"


def test_a_dead_letter_lets_the_others_pass(table: Table) -> None:
    first, second = table.record(), table.record()

    table.apply(bury(first, table.claimed(first).token, ERROR))

    assert table.claim(second) is not None


@pytest.mark.parametrize(
    "other",
    [{"subject": "another"}, {"subject": None}, {"tenant": "another"}, {"source": "/another"}, {"type_": "mail.sent"}],
)
def test_what_is_no_event_of_the_subject_does_not_wait(table: Table, other: dict[str, Any]) -> None:
    table.claimed(table.record())

    assert table.claim(table.record(**other)) is not None


def test_an_unordered_type_of_the_subject_is_not_waited_for(table: Table) -> None:
    table.record("mail.sent")

    assert table.claim(table.record()) is not None


def test_without_ordered_types_nobody_waits(table: Table) -> None:
    table.run("UPDATE served_type SET is_ordered = false")
    first, second = table.record(), table.record()

    assert table.claim(second) is not None
    assert table.claim(first) is not None


def test_a_search_takes_one_event_of_each_subject(table: Table) -> None:
    recorded = [(subject, table.record(subject=subject)) for subject in "aabbab"]

    taken = table.claim_due()

    assert sorted(ids(taken)) == [recorded[0][1], recorded[2][1]]
    assert table.claim_due() == []


def test_an_earlier_event_that_shows_up_late_does_not_run_beside_a_later_one(table: Table) -> None:
    earlier, later = table.record(), table.record()
    table.run(f"UPDATE processing_state SET lane_at = lane_at - interval '1 h' WHERE event_id = '{later}'")  # noqa: S608
    running = table.claimed(later)
    table.run(f"UPDATE processing_state SET lane_at = lane_at - interval '2 h' WHERE event_id = '{earlier}'")  # noqa: S608

    assert table.claim(earlier) is None
    other = table.record(subject="another")
    assert ids(table.claim_due()) == [other], "a search is not spoilt by it"
    table.settle(running)
    assert table.claim(earlier) is not None


def test_two_claims_that_see_nobody_in_the_lane_are_told_apart_by_the_index(
    table: Table, eventually: Eventually
) -> None:
    earlier, later = table.record(), table.record()
    # Neither sees the other before it: as when the earlier one's recording commits last.
    table.run("UPDATE processing_state SET lane_at = '2026-01-01'")
    table.run(f"UPDATE processing_state SET lane_at = '2025-01-01' WHERE event_id = '{later}'")  # noqa: S608
    with ThreadPoolExecutor(1) as pool, table.database.transaction() as session:
        claims.claim_events(session, [(later, 1)], owner="w", lease_seconds=30)
        table.run(f"UPDATE processing_state SET lane_at = '2024-01-01' WHERE event_id = '{earlier}'")  # noqa: S608
        waiting = pool.submit(table.claim, earlier)
        eventually(lambda: table.run(WAITING).scalar() == 1, message="the second claim waits for the first")
        session.commit()
        assert waiting.result(10) is None


def test_many_workers_take_a_subject_one_by_one_in_order(table: Table) -> None:
    recorded = [table.record() for _ in range(30)]
    order: list[UUID] = []
    running = threading.Semaphore(1)

    def work(_: int) -> None:
        while len(order) < len(recorded):
            for lease in table.claim_due():
                assert running.acquire(blocking=False), "two events of one subject at once"
                order.append(lease.event.id)
                running.release()
                table.settle(lease)
                table.next_in_lane(lease)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))

    assert order == recorded


def test_a_worker_may_not_settle_what_it_lost_in_a_lane(table: Table) -> None:
    first = table.record()
    lease = table.claimed(first)
    table.run("UPDATE processing_state SET lease_expires_at = now() - interval '1 s'")
    with table.database.transaction() as session:
        leases.recover_expired(session, limit=10)
        with pytest.raises(LeaseLost):
            lifecycle.hold(session, lease)
    assert table.run("SELECT count(*) FROM processing_state WHERE held_lane_key IS NOT NULL").scalar() == 0


def test_the_search_uses_the_index(table: Table) -> None:
    table.run("SET LOCAL enable_seqscan = off; SELECT 1")
    with table.database.transaction() as session:
        session.execute(text("SET LOCAL enable_seqscan = off"))
        kinds = [candidates.Kind("", "t", 5)._asdict()]
        given = {"kinds": json.dumps(kinds), "overdue_seconds": 0, "limit": 1}
        plan = "\n".join(session.scalars(text("EXPLAIN " + str(candidates._DUE)), given))
    assert "ix_processing_state_turn" in plan
